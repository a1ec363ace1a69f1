"""Stand-ins for CTK's widgets: their names, properties, slots and signals as in CTK's headers."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal, Slot

HEADER = 24  # height of a collapsible button's own row, in pixels


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A header to click on; the contents below it fold away."""

    contentsCollapsed = Signal(bool)
    clicked = Signal(bool)
    toggled = Signal(bool)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._text, self._collapsed = "", False
        self.setContentsMargins(4, HEADER + 2, 4, 4)
        self.setMinimumHeight(HEADER + 4)

    def _get_text(self) -> str:
        return self._text

    @Slot(str)
    def setText(self, text: str) -> None:
        self._text = text
        self.update()

    def _get_collapsed(self) -> bool:
        return self._collapsed

    @Slot(bool)
    def setCollapsed(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(not collapsed)
        self.setMaximumHeight(HEADER + 4 if collapsed else 16777215)
        self.contentsCollapsed.emit(collapsed)
        self.update()

    def _get_checked(self) -> bool:
        return not self._collapsed

    def _set_checked(self, checked: bool) -> None:
        self.setCollapsed(not checked)

    text = Property(str, _get_text, setText)
    collapsed = Property(bool, _get_collapsed, setCollapsed)
    checked = Property(bool, _get_checked, _set_checked)

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        child = event.child()
        if self._collapsed and event.added() and isinstance(child, QtWidgets.QWidget):
            child.setVisible(False)

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        if event.position().y() <= HEADER:
            self.setCollapsed(not self._collapsed)

    def paintEvent(self, _event: QtGui.QPaintEvent) -> None:
        painter, option = QtGui.QPainter(self), QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.rect.width(), HEADER)
        option.text = ("\u25b8 " if self._collapsed else "\u25be ") + self._text
        self.style().drawControl(QtWidgets.QStyle.ControlElement.CE_PushButton, option, painter)
        if not self._collapsed:
            painter.setPen(QtGui.QColor("#bbbbbb"))
            painter.drawRect(0, HEADER, self.rect.width() - 1, self.rect.height() - HEADER - 1)
        painter.end()


class ctkFlowLayout(QtWidgets.QLayout):
    """Items side by side, in as many rows as the width asks for, all as wide as the widest."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent) if parent is not None else super().__init__()
        self._items: list[Any] = []

    def addItem(self, item: Any) -> None:
        self._items.append(item)

    def count(self) -> int:
        return len(self._items)

    def itemAt(self, index: int) -> Any:
        return self._items[index] if 0 <= index < len(self._items) else None

    def takeAt(self, index: int) -> Any:
        return self._items.pop(index) if 0 <= index < len(self._items) else None

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        return self._arrange(QtCore.QRect(0, 0, width, 0), move=False)

    def setGeometry(self, rectangle: QtCore.QRect) -> None:
        super().setGeometry(rectangle)
        self._arrange(rectangle, move=True)

    def minimumSize(self) -> QtCore.QSize:
        widths = [item.sizeHint().width() for item in self._items]
        heights = [item.sizeHint().height() for item in self._items]
        return QtCore.QSize(max(widths, default=0), max(heights, default=0))

    def sizeHint(self) -> QtCore.QSize:
        return self.minimumSize()

    def _arrange(self, rectangle: QtCore.QRect, move: bool) -> int:
        size, gap = self.minimumSize(), 4
        columns = max((rectangle.width() + gap) // (size.width() + gap), 1)
        columns = min(columns, max(len(self._items), 1))
        width = (rectangle.width() - gap * (columns - 1)) // columns
        for n, item in enumerate(self._items if move else ()):
            x = rectangle.x() + n % columns * (width + gap)
            y = rectangle.y() + n // columns * (size.height() + gap)
            item.setGeometry(QtCore.QRect(x, y, width, size.height()))
        rows = -(-len(self._items) // columns)
        return rows * (size.height() + gap) - gap


class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box with a check mark that folds it."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.setCheckable(True)
        self.toggled.connect(self._fold)

    def _fold(self, open_: bool) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(open_)

    def _get(self) -> bool:
        return not bool(self.checked)

    def _set(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, _get, _set)


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider beside a spin box. While the slider is dragged with tracking off, only
    ``valueIsChanging`` is sent; ``valueChanged`` comes with its release."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    decimalsChanged = Signal(int)
    _signals = {
        "valueChanged(double)": "valueChanged",
        "valueIsChanging(double)": "valueIsChanging",
        "decimalsChanged(int)": "decimalsChanged",
    }
    STEPS = 1000

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        self._box = QtWidgets.QDoubleSpinBox()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._slider.setRange(0, self.STEPS)
        self._box.setRange(0.0, 99.0)
        self._value, self._tracking, self._quiet = 0.0, True, False
        self._slider.connect("valueChanged(int)", self._slid)
        self._slider.connect("sliderReleased()", self._released)
        self._box.connect("valueChanged(double)", self._typed)

    def _slid(self, step: int) -> None:
        if self._quiet:
            return
        low, high = self._box.minimum, self._box.maximum
        self._show(low + (high - low) * step / self.STEPS)
        if self._slider.sliderDown and not self._tracking:
            self.valueIsChanging.emit(float(self._box.value))
        else:
            self._settle()

    def _released(self) -> None:
        self._settle()

    def _typed(self, _value: float) -> None:
        if not self._quiet:
            self._show(float(self._box.value))
            self._settle()

    def _show(self, value: float) -> None:
        self._quiet = True
        self._box.setValue(value)
        span = (self._box.maximum - self._box.minimum) or 1.0
        if not self._slider.sliderDown:
            self._slider.setValue(round(self.STEPS * (value - self._box.minimum) / span))
        self._quiet = False

    def _settle(self) -> None:
        if self._value != self._box.value:
            self._value = float(self._box.value)
            self.valueChanged.emit(self._value)

    def _get_value(self) -> float:
        return self._value

    @Slot(float)
    def setValue(self, value: float) -> None:
        self._show(value)
        self._settle()

    def _get_minimum(self) -> float:
        return float(self._box.minimum)

    def setMinimum(self, value: float) -> None:
        self._box.setMinimum(value)
        self.setValue(float(self._box.value))

    def _get_maximum(self) -> float:
        return float(self._box.maximum)

    def setMaximum(self, value: float) -> None:
        self._box.setMaximum(value)
        self.setValue(float(self._box.value))

    def _get_step(self) -> float:
        return float(self._box.singleStep)

    def setSingleStep(self, value: float) -> None:
        self._box.setSingleStep(value)

    def setPageStep(self, _value: float) -> None:
        return

    def _get_decimals(self) -> int:
        return int(self._box.decimals)

    def setDecimals(self, value: int) -> None:
        self._box.setDecimals(value)

    def _get_suffix(self) -> str:
        return str(self._box.suffix)

    def setSuffix(self, text: str) -> None:
        self._box.setSuffix(text)

    def _get_tracking(self) -> bool:
        return self._tracking

    def setTracking(self, on: bool) -> None:
        self._tracking = on

    value = Property(float, _get_value, setValue)
    minimum = Property(float, _get_minimum, setMinimum)
    maximum = Property(float, _get_maximum, setMaximum)
    singleStep = Property(float, _get_step, setSingleStep)
    pageStep = Property(float, _get_step, setPageStep)
    decimals = Property(int, _get_decimals, setDecimals)
    suffix = Property(str, _get_suffix, setSuffix)
    tracking = Property(bool, _get_tracking, setTracking)


class ctkPathLineEdit(QtWidgets.QWidget):
    """A path to type, or to look for with the button beside it."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    _signals = {
        "currentPathChanged(QString)": "currentPathChanged",
        "validInputChanged(bool)": "validInputChanged",
    }
    # Values of ctkPathLineEdit::Filter.
    Dirs, Drives, Files, Readable, Writable, Executable = 1, 4, 2, 16, 32, 64

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._edit, self._browse = QtWidgets.QLineEdit(), QtWidgets.QToolButton()
        self._browse.setText("...")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._edit)
        layout.addWidget(self._browse)
        self._filters: Any = ""
        self._key = ""
        self._edit.connect("textChanged(QString)", self.currentPathChanged.emit)

    def _get_path(self) -> str:
        return str(self._edit.text)

    @Slot(str)
    def setCurrentPath(self, path: str) -> None:
        self._edit.setText(path)

    def addCurrentPathToHistory(self) -> None:
        return

    def _get_filters(self) -> Any:
        return self._filters

    def setFilters(self, filters: Any) -> None:
        self._filters = filters

    def _get_key(self) -> str:
        return self._key

    def setSettingKey(self, key: str) -> None:
        self._key = key

    currentPath = Property(str, _get_path, setCurrentPath)
    filters = Property("QVariant", _get_filters, setFilters)
    settingKey = Property(str, _get_key, setSettingKey)


class ctkComboBox(QtWidgets.QComboBox):
    """A combo box (CTK's has a default text besides)."""


class ctkMessageBox(QtWidgets.QMessageBox):
    """A message box (CTK's has "don't show again" besides)."""


WIDGETS = (
    ctkFlowLayout,
    ctkCollapsibleButton,
    ctkCollapsibleGroupBox,
    ctkSliderWidget,
    ctkPathLineEdit,
    ctkComboBox,
    ctkMessageBox,
)
