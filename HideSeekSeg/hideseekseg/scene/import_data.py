"""What comes into the scene: images of the library as nodes, and saved scenes (.mrb) of anybody.

Slicer's own reader unpacks without a check and follows whatever a storage node names, an address on
the network and a file elsewhere on the disk included; here only files inside a scene are opened.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from weakref import WeakKeyDictionary

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util import numpy_support

from ..errors import InputError
from ..files import temporary_folder
from ..imaging.segmentation import Segmentation
from ..imaging.text_headers import check_text_header, is_text_header
from ..imaging.volume import Grid, Volume, content_hash, scan_identity
from ..output.segment_description import PREFIX
from ..unpacking import ArchiveLimits, unpack
from .geometry import LABELMAP, asMatrix, localGrid
from .results import Results

TERMINOLOGY = Path(__file__).resolve().with_name("vertebrae.term.json")


def loadVertebrae() -> str:
    """Add the vertebrae to Slicer's regions; the list's name, empty where Slicer refused it."""
    logic = slicer.modules.terminologies.logic()
    return str(logic.LoadRegionContextFromFile(str(TERMINOLOGY)))


_DATA = (
    "vtkMRMLVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLTableNode",
    "vtkMRMLModelNode",
    "vtkMRMLTransformNode",
    "vtkMRMLMarkupsNode",
)


_SCAN = PREFIX + "Scan"
_SAME_PLACE_MM = 1e-3
_State = tuple[int, str]  # of a node's voxels and place: changes when one of both does
_checked: WeakKeyDictionary[Any, _State] = WeakKeyDictionary()  # nodes that are what they say
_hashed: WeakKeyDictionary[Any, tuple[_State, str]] = WeakKeyDictionary()


def addCt(volume: Volume, name: str) -> Any:
    """Add a CT as a volume node that knows which scan it is."""
    array = np.ascontiguousarray(volume.array)
    node = slicer.util.addVolumeFromArray(array, asMatrix(volume.grid), name)
    node.CreateDefaultDisplayNodes()
    # Hashed with this place: Slicer keeps places in parts, which rounds their last digits.
    place = volume.grid.ijk_to_lps.tolist()
    node.SetAttribute(_SCAN, json.dumps({**scan_identity(volume), "name": name, "place": place}))
    _checked[node] = _state(node)
    return node


def scanOf(ctNode: Any) -> dict[str, str]:
    """Return which scan a volume node is, as ``imaging.volume.scan_identity`` does.

    One that was not read by the library, or whose voxels or place were changed since, says what
    Slicer knows of it: its file, its DICOM series, and nothing that names a patient.
    """
    kept = json.loads(ctNode.GetAttribute(_SCAN) or "{}")
    place = kept.pop("place", None)
    if kept and _isStill(ctNode, str(kept.get("sha256")), place):
        return {str(key): str(value) for key, value in kept.items()}
    storage = ctNode.GetStorageNode()
    scan = {
        "name": ctNode.GetName() or "",
        "path": (storage.GetFileName() or "") if storage else "",
    }
    scan["sha256"] = content_hash(slicer.util.arrayFromVolume(ctNode), localGrid(ctNode))
    scene = ctNode.GetScene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(ctNode) if hierarchy else 0
    while item and item != hierarchy.GetSceneItemID():
        if hierarchy.GetItemLevel(item) == "Study":
            scan["study_uid"] = hierarchy.GetItemUID(item, "DICOM")
            scan["study_date"] = hierarchy.GetItemAttribute(item, "DICOM.StudyDate")
        elif "series_uid" not in scan:
            scan["series_uid"] = hierarchy.GetItemUID(item, "DICOM")
        item = hierarchy.GetItemParent(item)
    return {key: value for key, value in scan.items() if value}


def hashOf(ctNode: Any) -> str:
    """Return the SHA-256 of a volume node's scan, empty where it has no voxels.

    Hashing a large CT takes a second: it is done once for each state of a node.
    """
    if ctNode is None or ctNode.GetImageData() is None:
        return ""
    state = _state(ctNode)
    known = _hashed.get(ctNode)
    if known is None or known[0] != state:
        known = _hashed[ctNode] = state, scanOf(ctNode).get("sha256", "")
    return known[1]


def _isStill(ctNode: Any, hashed: str, place: Any) -> bool:
    """Return whether a node has the voxels and the place that its scan had when it was read.

    A copy of a node has its attributes, whatever is done to its voxels.  Those of scenes of earlier
    versions do not say their ``place``, and are believed.
    """
    if place is None or ctNode.GetImageData() is None or _checked.get(ctNode) == _state(ctNode):
        return True
    grid = localGrid(ctNode)
    read = Grid(grid.shape, np.array(place, float))
    same = grid.distance(read) < _SAME_PLACE_MM
    if same and content_hash(slicer.util.arrayFromVolume(ctNode), read) == hashed:
        _checked[ctNode] = _state(ctNode)  # hashing a large CT takes a second
        return True
    return False


def _state(ctNode: Any) -> _State:
    return int(ctNode.GetImageData().GetMTime()), str(localGrid(ctNode).ijk_to_lps.tolist())


def dicomFilesOf(ctNode: Any) -> list[Path]:
    """Return the DICOM files that a volume node was loaded from, as far as all are still there.

    Slicer's DICOM readers keep the instances' UIDs in the node, and its database knows their files;
    the list is empty where there is no such database, or where it lacks one of them.  The library's
    own nodes say which folder of DICOM files they were read from.
    """
    uids = (ctNode.GetAttribute("DICOM.instanceUIDs") or "").split() if ctNode else []
    database = getattr(slicer, "dicomDatabase", None)
    if uids and database is not None and database.isOpen:
        files = [Path(database.fileForInstance(uid) or "") for uid in uids]
        return files if all(file.is_file() for file in files) else []
    scan = scanOf(ctNode) if ctNode else {}
    place = Path(scan.get("path", ""))
    return [place] if scan.get("series_uid") and scan.get("path") and place.exists() else []


def addSegmentation(segmentation: Segmentation, name: str, ctNode: Any) -> Any:
    """Add a segmentation; segments keep their names, values, codes and shared layers."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(ctNode)
    images = [_image(layer) for layer in segmentation.layers]
    modifying = node.StartModify()
    for number, said in enumerate(segmentation.segments):
        segment = slicer.vtkSegment()
        segment.SetName(said.name or f"Segment_{said.value}")
        segment.SetLabelValue(said.value)
        if said.terminology:
            segment.SetTerminology(said.terminology)
        segment.AddRepresentation(LABELMAP, images[said.layer])
        node.GetSegmentation().AddSegment(segment, said.id or f"Segment_{number}")
    node.EndModify(modifying)
    return node


def removeData() -> None:
    """Remove what belongs to a patient; views and their settings stay."""
    scene = slicer.mrmlScene
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", scene):
        if Results.isOne(node):
            removeResults(node)
    for kind in _DATA:
        for node in slicer.util.getNodesByClass(kind, scene):
            if not _isPartOfView(node):
                scene.RemoveNode(node)
    _removeStorage()


def _removeStorage() -> None:
    """Forget where an earlier save put removed nodes.

    A scene that names that place would not open again.
    """
    scene = slicer.mrmlScene
    nodes = slicer.util.getNodesByClass("vtkMRMLStorableNode", scene)
    used = {
        node.GetNthStorageNodeID(n) for node in nodes for n in range(node.GetNumberOfStorageNodes())
    }
    for storage in slicer.util.getNodesByClass("vtkMRMLStorageNode", scene):
        if storage.GetID() not in used:
            scene.RemoveNode(storage)


def removeResults(node: Any) -> None:
    """Remove the results of a segmentation node with all that belongs to them; others stay."""
    for one in (*Results.partsOf(node), node):
        slicer.mrmlScene.RemoveNode(one)
    _removeStorage()


def _isPartOfView(node: Any) -> bool:
    """Return whether it is the plane that a slice view draws in 3D, or its transform."""
    return (bool(node.GetHideFromEditors()) and not node.GetSaveWithScene()) or _ofSlice(node)


def _ofSlice(node: Any) -> bool:
    return (node.GetName() or "").endswith((" Volume Slice", " Slice Model", " Transform"))


def _image(layer: Volume) -> Any:
    """Labels (K, J, I) as Slicer keeps segments that share a layer."""
    array = np.ascontiguousarray(layer.array)
    array = array.astype(np.min_scalar_type(max(int(array.max()), 1)), copy=False)
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*array.shape[::-1])
    image.SetImageToWorldMatrix(asMatrix(layer.grid))
    image.AllocateScalars(_TYPES[array.dtype.name], 1)
    numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:] = array.ravel()
    return image


_TYPES = {
    "uint8": vtk.VTK_UNSIGNED_CHAR,
    "uint16": vtk.VTK_UNSIGNED_SHORT,
    "uint32": vtk.VTK_UNSIGNED_INT,
}


LIMITS = ArchiveLimits(members=5_000, total_bytes=16 << 30)
MOST_SCENE_BYTES = 256 << 20  # of the scene's own description
_FILE = re.compile(r"(file(name|listmember\d*))", re.IGNORECASE)
_ADDRESS = re.compile(r"uri|url", re.IGNORECASE)


def read_scene(path: Path, before: Callable[[], None] = lambda: None) -> None:
    """Add a saved scene to the present one; ``before`` is called once the file is found good.

    Raises InputError, and then nothing was changed, where the file is not a scene, names files
    outside itself, or holds images with damaged headers.  Network addresses in it are dropped.
    """
    with checked_scene(path) as description:
        before()
        scene = slicer.mrmlScene
        place = scene.GetURL() or "", scene.GetRootDirectory() or ""
        try:
            scene.SetURL(str(description))
            scene.SetRootDirectory(str(description.parent))
            if not scene.Import():
                raise InputError(path, "is a damaged scene of Slicer")
        finally:
            scene.SetURL(place[0])
            scene.SetRootDirectory(place[1])


@contextmanager
def checked_scene(path: Path) -> Iterator[Path]:
    """Unpack a scene to a folder that lasts as long as the block; yield its description (.mrml)."""
    if not path.is_file():
        raise InputError(path, "does not exist")
    if not zipfile.is_zipfile(path):
        raise InputError(path, "is not a scene of Slicer (.mrb)")
    with temporary_folder(purpose="scene") as folder:
        inside = folder.resolve()
        files = unpack(path, inside, LIMITS)
        descriptions = [file for file in files if file.suffix.lower() == ".mrml"]
        if len(descriptions) != 1:
            raise InputError(path, "is not a scene of Slicer: it contains no single .mrml file")
        _check_description(path, descriptions[0], inside)
        for file in files:
            if is_text_header(file):
                _check_image(path, file)
        yield descriptions[0]


def _check_image(path: Path, file: Path) -> None:
    try:
        check_text_header(file)
    except InputError as error:
        raise InputError(path, f"contains the damaged image {file.name}: {error.cause}") from error


def _check_description(path: Path, description: Path, inside: Path) -> None:
    """Refuse what names anything outside the archive; take addresses away, the files are here."""
    if description.stat().st_size > MOST_SCENE_BYTES:
        raise InputError(path, "is refused: its description is too large")
    content = description.read_bytes()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise InputError(path, "is refused: its description declares XML entities")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise InputError(path, f"is a damaged scene of Slicer: {error}") from error
    changed = False
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if _ADDRESS.search(name):
                del element.attrib[name]
                changed = True
            elif _FILE.fullmatch(name) and value:
                _check_name(path, description.parent, inside, value)
    if changed:
        description.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _check_name(path: Path, base: Path, inside: Path, value: str) -> None:
    for name in {value, unquote(value)}:
        if "://" in name or not (base / name).resolve().is_relative_to(inside):
            raise InputError(path, f"is refused: it names {name[:80]!r}, which lies outside it")
