"""The results of a run in the scene: a segmentation of their own, with what belongs to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import slicer
import slicer.util

from ..errors import SceneError
from ..findings import Evidence, VertebraFinding
from ..imaging.volume import NO_VOXELS, Grid, Patch
from ..output.figures.drawing import is_hounsfield
from ..output.segment_description import (
    PREFIX,
    SegmentDescription,
    describe_candidate,
    describe_item,
    labels,
)
from ..plain_data import as_type, first_line, from_plain
from ..review.burden import Burden
from ..review.review import Item, Review
from .export_inputs import LevelRow, levelRows
from .geometry import (
    CT_REFERENCE,
    LABELMAP,
    SURFACE,
    arrayOfImage,
    hasVoxels,
    imageOfPatch,
    patchOfSegment,
    voxelAt,
)
from .result_nodes import (
    EVIDENCE_ROLES,
    KeptEvidence,
    fillBurden,
    fillTable,
    isInScene,
    placeBeside,
)
from .run_place import RunPlace, placeOfRun
from .segments import dress, show, tag

# How much of a lesion's colour lies over the bone in slices; its outline is opaque.
_FILL = 0.25
_RUN = PREFIX + "Run"
_PLACE = PREFIX + "Place"
_TABLE = PREFIX + "Table"
_BURDEN = PREFIX + "Burden"
_SOURCE = PREFIX + "Vertebrae"
_CORRECTED = PREFIX + "Corrected"


_HU_SAMPLE = 200_000  # voxels that tell whether a CT is in HU


class Results:
    """The lesions of one run, on the CT's voxels and under the CT's transform.

    Every candidate is a segment whose ID is the candidate's, whatever its score: the threshold
    only hides.  What is needed later is in the node, so that the CT may go and the scene be saved.
    """

    def __init__(self, node: Any) -> None:
        self.node = node
        try:
            self._place = from_plain(RunPlace, json.loads(node.GetAttribute(_PLACE)))
            self._grid = self._place.grid()
        except (ValueError, RecursionError) as error:
            cause = f"“{node.GetName()}”: the saved results cannot be read: {first_line(error)}"
            raise SceneError(cause) from error
        self._ct = node.GetNodeReference(CT_REFERENCE)
        self._source = node.GetNodeReference(_SOURCE)
        self._findings: dict[str, VertebraFinding] = {}
        self._applied: dict[str, Item] = {}
        self._putBack: frozenset[str] = frozenset()
        self._late: set[str] = set()  # levels that came after the node was removed
        self.kept = KeptEvidence(node)
        self._burden: list[Burden] = []

    @classmethod
    def create(
        cls,
        ctNode: Any,
        segmentationNode: Any,
        run: Mapping[str, Any],
        grid: Grid | None = None,
    ) -> Results:
        """Empty results beside the CT; ``run`` is what is needed to repeat the run, for JSON.

        ``grid`` is where the CT's voxels lay in the world (LPS) when the run began, None: as now.
        Raises SceneError where the CT is not in a scene any more, or has other voxels.
        """
        if ctNode is None or ctNode.GetScene() is None or ctNode.GetImageData() is None:
            raise SceneError("The CT was removed from the scene: choose it and run again.")
        place = placeOfRun(ctNode, grid)
        scene = ctNode.GetScene()
        name = scene.GenerateUniqueName(f"{ctNode.GetName()} metastases")
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetOpacity2DFill(_FILL)
        node.SetAndObserveTransformNodeID(ctNode.GetTransformNodeID())
        node.SetReferenceImageGeometryParameterFromVolumeNode(ctNode)
        node.SetNodeReferenceID(CT_REFERENCE, ctNode.GetID())
        if segmentationNode is not None and segmentationNode.GetScene() is scene:
            node.SetNodeReferenceID(_SOURCE, segmentationNode.GetID())
        node.SetAttribute(_RUN, json.dumps(dict(run), default=str))
        node.SetAttribute(_PLACE, json.dumps(asdict(place)))
        table = scene.AddNewNodeByClass("vtkMRMLTableNode", f"{name} candidates")
        node.SetNodeReferenceID(_TABLE, table.GetID())
        for made in (node, table):
            placeBeside(made, ctNode)
        return cls(node)

    @classmethod
    def of(cls, node: Any) -> Results:
        """Results that are in the scene already, as after loading it.

        Raises SceneError where there are none, or damaged ones.
        """
        if node is None or not cls.isOne(node):
            raise SceneError("This segmentation contains no results of HideSeekSeg.")
        return cls(node)

    @staticmethod
    def isOne(node: Any) -> bool:
        """Return whether a node holds the results of a run."""
        return node.IsA("vtkMRMLSegmentationNode") and node.GetAttribute(_PLACE) is not None

    @property
    def alive(self) -> bool:
        """Return whether the node is still in its scene."""
        return isInScene(self.node)

    @property
    def ctNode(self) -> Any:
        """None where it was removed from the scene."""
        return self._ct if self._ct is not None and self._ct.GetScene() is not None else None

    @property
    def segmentationNode(self) -> Any:
        """The user's vertebrae, None where they were removed from the scene."""
        return self.node.GetNodeReference(_SOURCE) if self.alive else None

    def levelRows(self) -> list[LevelRow]:
        """Return the rows of the user's vertebrae as the run read them; empty without these."""
        node, ran = self.segmentationNode, self.run.get("levels")
        said = ran.items() if isinstance(ran, dict) else ()  # a scene of version 0.1 has none
        read = {str(segment): str(text) for segment, text in said}
        return levelRows(node, read) if node is not None else []

    def adopt(self, ctNode: Any) -> None:
        """Refer to this CT: the scan of the run, loaded again after its first node was removed."""
        self._mustBeThere()
        self.node.SetNodeReferenceID(CT_REFERENCE, ctNode.GetID())
        self.node.SetAndObserveTransformNodeID(ctNode.GetTransformNodeID())
        self._ct = ctNode

    def disown(self) -> None:
        """Refer to no vertebrae any more: those at hand are not those of the run."""
        self.node.SetNodeReferenceID(_SOURCE, None)
        self._source = None

    @property
    def tableNode(self) -> Any:
        return self.node.GetNodeReference(_TABLE) if self.alive else None

    @property
    def burdenNode(self) -> Any:
        """The table of the lesion burden, made when it is asked for first."""
        node = self.node.GetNodeReference(_BURDEN)
        if node is None:
            name = f"{self.node.GetName()} lesion burden"
            node = self.node.GetScene().AddNewNodeByClass("vtkMRMLTableNode", name)
            self.node.SetNodeReferenceID(_BURDEN, node.GetID())
            placeBeside(node, self.node)
        return node

    @property
    def parts(self) -> list[Any]:
        """The other nodes of these results: table, evidence and pictures."""
        return self.partsOf(self.node) if self.alive else []

    @staticmethod
    def partsOf(node: Any) -> list[Any]:
        """Return the other nodes of a node's results, whatever else is wrong with it."""
        roles = (_TABLE, _BURDEN, *EVIDENCE_ROLES)
        parts = (node.GetNodeReference(role) for role in roles)
        return [part for part in parts if part is not None]

    @property
    def run(self) -> dict[str, Any]:
        """Return what ``create`` was given."""
        try:
            return as_type(dict[str, Any], json.loads(self.node.GetAttribute(_RUN) or "{}"))
        except (ValueError, RecursionError):  # of a damaged scene: the findings are what counts
            return {}

    @property
    def findings(self) -> Mapping[str, VertebraFinding]:
        """Return what ``addVertebra`` was given, by level; empty for results of a loaded scene."""
        return self._findings

    def tell(self, **facts: Any) -> None:
        """Change what ``run`` says."""
        self.node.SetAttribute(_RUN, json.dumps({**self.run, **facts}, default=str))

    @property
    def grid(self) -> Grid:
        """The CT's voxels as they were analysed, in world LPS: that of the candidates' patches."""
        return self._place.world()

    def addVertebra(self, finding: VertebraFinding, evidence: Evidence | None = None) -> None:
        """Add the candidates of a vertebra, hidden until the review says which are shown.

        Candidates of the same level that are there already are replaced.  Raises SceneError where
        the results were removed; the finding is kept, and ``recreated`` brings it back.
        """
        self._findings[finding.level] = finding
        if evidence is not None:
            self.kept.put(finding.level, evidence)
        if not self.alive:
            self._late.add(finding.level)
        self._mustBeThere()
        if evidence is not None:
            self.kept.save()
        segmentation = self.node.GetSegmentation()
        modifying = self.node.StartModify()
        for identity in self._segmentsOf(finding.level):
            segmentation.RemoveSegment(identity)
            self._applied.pop(identity, None)
        first = segmentation.GetNumberOfSegments() == 0
        names = labels(finding)
        for candidate in finding.candidates:
            look = describe_candidate(finding, candidate, names[candidate.id])
            self._add(candidate.id, look, candidate.patch)
        if first and not segmentation.ContainsRepresentation(SURFACE):
            # Those that follow get theirs as well, unless the user switches 3D off.
            self.node.CreateClosedSurfaceRepresentation()
        self.node.EndModify(modifying)

    def addDrawn(self, item: Item, patch: Patch | None) -> None:
        """Add a lesion that a reader drew in other results of the same CT, or has yet to draw."""
        self._mustBeThere()
        self._add(item.id, describe_item(item), patch)

    def remake(self, items: Iterable[Item]) -> None:
        """Give lesions whose segments were removed from the segmentation empty ones.

        Removed is erased: what is listed can be drawn again, and nothing else follows from it.
        Raises SceneError where the results were removed from the scene.
        """
        self._mustBeThere()
        segmentation = self.node.GetSegmentation()
        for item in items:
            if segmentation.GetSegment(item.id) is None:
                self._add(item.id, describe_item(item), NO_VOXELS)

    def ownSegments(self, known: Collection[str]) -> list[str]:
        """Return the IDs of segments that the reader added in Slicer, beside the ``known`` lesions.

        What is left of a lesion whose addition was undone is none of them.
        """
        segmentation = self.node.GetSegmentation()
        rest = [x for x in segmentation.GetSegmentIDs() if x not in known]
        levels = {x: tag(segmentation.GetSegment(x), PREFIX + "Level") for x in rest}
        return [x for x in rest if not x.startswith(f"{levels[x]}-added-")]

    def nameOf(self, identity: str) -> str:
        """Return the name of a segment."""
        return str(self.node.GetSegmentation().GetSegment(identity).GetName() or identity)

    def hasOutline(self, identity: str) -> bool:
        """Return whether anything was drawn in a segment, on the CT or beside it."""
        segment = self.node.GetSegmentation().GetSegment(identity)
        image, surface = (segment.GetRepresentation(x) for x in (LABELMAP, SURFACE))
        if hasVoxels(image):
            return bool((arrayOfImage(image) == segment.GetLabelValue()).any())
        return surface is not None and surface.GetNumberOfPoints() > 0

    def removeSegment(self, identity: str) -> None:
        """Remove a segment that is no lesion of the review."""
        self._mustBeThere()
        self.node.GetSegmentation().RemoveSegment(identity)

    def forget(self, identity: str) -> None:
        """Remove what is left of a lesion whose addition was undone; its id is free again."""
        self._mustBeThere()
        self._applied.pop(identity, None)
        if self.node.GetSegmentation().GetSegment(identity) is not None:
            self.node.GetSegmentation().RemoveSegment(identity)

    def removeLevel(self, level: str) -> None:
        """Forget what the run found in a vertebra; raises SceneError as ``addVertebra`` does."""
        self._mustBeThere()
        self._findings.pop(level, None)
        for identity in self._segmentsOf(level):
            self.node.GetSegmentation().RemoveSegment(identity)
            self._applied.pop(identity, None)
        if self.kept.drop(level):
            self.kept.save()

    def evidence(self, level: str) -> Evidence | None:
        """Return what was kept of a vertebra, None where there is nothing or it is damaged."""
        return self.kept.of(level)

    @property
    def canReturn(self) -> bool:
        """Tell whether ``recreated`` can bring something back: not after the scene was loaded."""
        segmentation = self.node.GetSegmentation()
        segments = (
            segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments())
        )
        levels = {tag(x, PREFIX + "Level") for x in segments if tag(x, PREFIX + "Score")}
        known = bool(self._findings) and levels <= self._findings.keys()
        return known and self.ctNode is not None

    @property
    def putBack(self) -> Collection[str]:
        """Return the lesions whose outlines ``recreated`` took from results that were removed."""
        return self._putBack

    def noteCorrected(self, identities: Iterable[str]) -> None:
        """Keep in the scene which candidates have outlines of the reader's own.

        One that is as the run left it, where that is known, has none any more.
        """
        found = self._foundByRun()
        for identity in identities:
            segment = self.node.GetSegmentation().GetSegment(identity)
            if segment is None or not tag(segment, PREFIX + "Score"):
                continue
            before = found.get(identity)
            if before is not None and _same(patchOfSegment(segment, self._grid), before):
                segment.RemoveTag(_CORRECTED)
            else:
                segment.SetTag(_CORRECTED, "yes")

    def corrected(self, levels: Iterable[str]) -> dict[str, Patch | None]:
        """Return the outlines of ``noteCorrected`` in these levels; None where all was erased.

        Also of results that were removed from the scene.
        """
        names = [name for level in levels for name in self._segmentsOf(level)]
        segments = {name: self.node.GetSegmentation().GetSegment(name) for name in names}
        return {
            name: patchOfSegment(segment, self._grid)
            for name, segment in segments.items()
            if tag(segment, _CORRECTED)
        }

    def _foundByRun(self) -> dict[str, Patch | None]:
        """Return the outlines as the run left them, by candidate id, where that is known."""
        return {c.id: c.patch for v in self._findings.values() for c in v.candidates}

    def recreated(self) -> Results:
        """Make new results with all findings of this run, after the first ones were removed.

        With outlines as the reader left them: drawn, corrected or erased.

        Raises SceneError where the CT is gone as well.
        """
        new = Results.create(self.ctNode, self._source, self.run, self.grid)
        new.node.SetName(self.node.GetName())
        for finding in self._findings.values():
            new.addVertebra(finding)
        new.kept.takeOver(self.kept)
        new._takeOutlines(self)
        return new

    def _takeOutlines(self, removed: Results) -> None:
        """Take over outlines that the run does not have; a node that was removed still has them.

        Also those of lesions whose addition was undone: it can be redone.
        """
        found = self._foundByRun()
        source, segmentation = removed.node.GetSegmentation(), self.node.GetSegmentation()
        older = {x for level in removed._late for x in removed._segmentsOf(level)}
        taken = []
        for identity in [x for x in source.GetSegmentIDs() if x not in older]:
            outline, before = patchOfSegment(source.GetSegment(identity), removed._grid), None
            if segmentation.GetSegment(identity) is None:
                segmentation.CopySegmentFromSegmentation(source, identity)
                self.node.GetDisplayNode().SetSegmentVisibility(identity, False)
            elif (before := found.get(identity)) is not None and _same(outline, before):
                continue
            if outline is None and before is not None:  # erased
                outline = Patch(np.zeros_like(before.array), before.start)
            if outline is not None:
                self._setVoxels(identity, outline)
            taken.append(identity)
        if taken:
            segmentation.CreateRepresentation(SURFACE)
        self.noteCorrected(taken)
        self._putBack = frozenset(taken)

    def apply(self, review: Review) -> None:
        """Show what the review says; only what changed since the last time is touched.

        Raises SceneError where the results were removed from the scene.
        """
        self._mustBeThere()
        segmentation = self.node.GetSegmentation()
        changed = [x for x in review.items if self._applied.get(x.id) is not x]
        changed = [x for x in changed if self._applied.get(x.id) != x]
        gone = self._applied.keys() - {item.id for item in review.items}
        modifying = self.node.StartModify()
        for item in changed:
            segment = segmentation.GetSegment(item.id)
            if segment is not None:
                dress(segment, describe_item(item))
            elif item.missed:
                self._add(item.id, describe_item(item), None)
        self._applied = {item.id: item for item in review.items}
        if (changed or gone) and self.tableNode is not None:
            fillTable(self.tableNode, review.items)
        burden = review.burden()
        if burden != self._burden:
            self._burden = burden
            fillBurden(self.burdenNode, burden)
        seen = (x.id for x in review.items if review.is_finding(x) or _isMissed(x))
        show(self.node, seen)
        self.node.EndModify(modifying)

    def patches(self, identities: Collection[str] | None = None) -> dict[str, Patch]:
        """Return the segments' voxels on ``grid``, as they are now: outlines may be edited.

        Of all segments, or of those asked for; a segment without a voxel is left out.

        Raises SceneError where the results were removed from the scene.
        """
        self._mustBeThere()
        segmentation = self.node.GetSegmentation()
        found = {
            identity: patchOfSegment(segmentation.GetSegment(identity), self._grid)
            for identity in segmentation.GetSegmentIDs()
            if identities is None or identity in identities
        }
        return {identity: patch for identity, patch in found.items() if patch is not None}

    def centreOf(self, level: str) -> tuple[float, float, float] | None:
        """Return the middle of a vertebra in the world (LPS mm), None where it is not known.

        That of its evidence, or of the user's segment.
        """
        seen = self.evidence(level)
        if seen is not None:
            middle = (np.array(seen.grid.shape[::-1]) - 1) / 2
            x, y, z = (float(v) for v in seen.grid.lps(middle[None])[0])
            return self.here((x, y, z))
        node = self.segmentationNode
        for row in self.levelRows():
            if row.level == level:
                centre = node.GetSegmentCenterRAS(row.segmentID)
                return (-centre[0], -centre[1], centre[2]) if centre is not None else None
        return None

    def copyOf(self, identities: Collection[str]) -> Any:
        """Return a new segmentation node with these lesions alone; names and codes stay.

        Raises SceneError where the results were removed from the scene.
        """
        self._mustBeThere()
        scene = self.node.GetScene()
        name = scene.GenerateUniqueName(f"{self.node.GetName()} accepted")
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        node.SetAndObserveTransformNodeID(self.node.GetTransformNodeID())
        if self.ctNode is not None:
            node.SetReferenceImageGeometryParameterFromVolumeNode(self.ctNode)
            node.SetNodeReferenceID(CT_REFERENCE, self.ctNode.GetID())
        for identity in identities:
            source = self.node.GetSegmentation()
            node.GetSegmentation().CopySegmentFromSegmentation(source, identity)
            node.GetDisplayNode().SetSegmentVisibility(identity, True)
        placeBeside(node, self.node)
        return node

    def hounsfield(self) -> Any:
        """Return the CT's values (K, J, I); None without the CT, or where they are not HU."""
        ct = self.ctNode
        if ct is None or ct.GetImageData() is None:
            return None
        values = slicer.util.arrayFromVolume(ct)
        if values.shape != self._grid.shape:
            return None
        sample = values.ravel()[:: max(values.size // _HU_SAMPLE, 1)].astype(np.float32)
        return values if is_hounsfield(sample) else None

    def draw(self, identity: str, patch: Patch | None, surface: bool = True) -> None:
        """Give a segment these voxels on the CT's grid; raises SceneError where there is none.

        None leaves it without a voxel: all of it was erased.  Without a new ``surface``, which
        takes time, 3D shows it later.
        """
        self._mustBeThere()
        segmentation = self.node.GetSegmentation()
        if segmentation.GetSegment(identity) is None:
            raise SceneError(f"The results contain no lesion {identity}.")
        self._setVoxels(identity, patch, surface)
        if surface:
            segmentation.CreateRepresentation(SURFACE)

    def _setVoxels(self, identity: str, patch: Patch | None, surface: bool = True) -> None:
        """Give a segment these voxels; its ``surface``, that of others, goes."""
        segment = self.node.GetSegmentation().GetSegment(identity)
        segment.SetLabelValue(1)
        segment.AddRepresentation(LABELMAP, imageOfPatch(patch or NO_VOXELS, self._grid))
        if surface:
            segment.RemoveRepresentation(SURFACE)

    def inSharedImages(self) -> dict[str, int]:
        """Return the lesions whose image holds other segments too, as in a scene that was saved.

        Each with the number of its image.  A change of it says nothing of the single segment.
        """
        segmentation = self.node.GetSegmentation()
        names = segmentation.GetSegmentIDs()
        layers = {name: segmentation.GetLayerIndex(name) for name in names}
        count = Counter(layers.values())
        return {name: layer for name, layer in layers.items() if count[layer] > 1}

    def outlineTimes(self) -> dict[str, int]:
        """When each segment's voxels were last changed (VTK's counter), by lesion id."""
        segmentation = self.node.GetSegmentation()
        images = (
            (name, segmentation.GetSegment(name).GetRepresentation(LABELMAP))
            for name in segmentation.GetSegmentIDs()
        )
        return {name: image.GetMTime() for name, image in images if image is not None}

    def evidenceVolumes(self, evidence: Evidence, level: str = "") -> tuple[Any, Any]:
        """Show the healthy edit and the difference of one vertebra: volumes (edit, difference).

        There is one pair, which is filled anew for each vertebra, cannot be chosen as a CT and is
        not saved: it is made of what is ``kept``.  Raises SceneError where the results were removed
        from the scene.
        """
        self._mustBeThere()
        return self.kept.volumes(evidence, self._place.local(evidence.grid), level, self.ctNode)

    def here(self, lps: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return where a position of the run (LPS mm) is now: the CT may have been moved since."""
        return self._place.here(self.node, lps) if self.alive else lps

    def voxelAt(self, ras: tuple[float, float, float]) -> Any:
        """Return the voxel (i, j, k, fractions) at which a place of the world (RAS mm) is now."""
        return voxelAt(self.node, self._grid, ras)

    def _mustBeThere(self) -> None:
        if not self.alive:
            raise SceneError(
                "The results were removed from the scene: what is found is kept and can be put"
                " back."
            )

    def _segmentsOf(self, level: str) -> list[str]:
        """Return the candidates of a level, without the lesions that the reader drew."""
        segmentation = self.node.GetSegmentation()
        pairs = ((name, segmentation.GetSegment(name)) for name in segmentation.GetSegmentIDs())
        return [
            name
            for name, segment in pairs
            if tag(segment, PREFIX + "Level") == level and tag(segment, PREFIX + "Score")
        ]

    def _add(self, identity: str, look: SegmentDescription, patch: Patch | None) -> None:
        segment = slicer.vtkSegment()
        dress(segment, look)
        if patch is not None:
            segment.AddRepresentation(LABELMAP, imageOfPatch(patch, self._grid))
        self.node.GetSegmentation().AddSegment(segment, identity)
        self.node.GetDisplayNode().SetSegmentVisibility(identity, False)


def _same(now: Patch | None, before: Patch) -> bool:
    """Return whether an outline, if there is one, has the same voxels as before."""
    return (
        now is not None
        and now.start == before.start
        and bool(np.array_equal(now.array, before.array))
    )


def _isMissed(item: Item) -> bool:
    return item.missed and item.verdict != "rejected"
