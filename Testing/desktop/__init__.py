"""Slicer's desktop without Slicer: the modules ``qt``, ``ctk``, and windows for ``slicer``.

In a test, take the fixture ``desktop`` (it takes ``mrml``, the real scene, and clears it)::

    def test_button(desktop: Desktop) -> None:
        import qt, slicer                        # only now: the modules exist from here on
        panel = slicer.util.loadUI(str(path))    # stand-ins for ctk and qMRML widgets
        ui = slicer.util.childWidgetVariables(panel)
        ui.button.click()
        desktop.wait(lambda: ui.label.text == "done", seconds=10)   # runs the event loop
        desktop.key(panel, "A")                  # a key with its shortcuts
        desktop.picture(panel, path, width=420)  # PNG of the widget
        assert desktop.messages == [...]         # texts of message boxes; none blocks
        desktop.answers.append(False)            # what the next question gets (else yes/ok)
        desktop.paths.append("folder")           # what the next file dialog gives (else nothing);
                                                 # for getOpenFileNames a list; never a filter

Attributes behave as in PythonQt (see ``pythonqt``): ``label.text`` is a property, an attribute that
does not exist is an error, ``connect('clicked(bool)', f)`` checks the signature. An exception in a
slot fails the test when it ends. ``slicer.app.layoutManager()`` has three slice views with real
nodes and logics; ``desktop.selected`` lists modules that were switched to.
"""

from .running import Desktop, open_desktop

__all__ = ["Desktop", "open_desktop"]
