"""Everything that is made of a video in one pass: its rows, a chart, an annotated video, a report."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from .annotated import write_annotated_video
from .chart import draw_timeline
from .pipeline import Timeline
from .report import write_index, write_report
from .rows import Row
from .segments import SMOOTH_S
from .tables import read_table
from .video import DamagedVideoError


@dataclass(frozen=True)
class Outputs:
    """Files to make of one video beside its rows.

    Args:
        chart: Picture of the chart.
        annotate: Video with boxes and labels burnt in.
        report: HTML page.
        smooth_s: Seconds over which segments are smoothed, in chart and report.
    """

    chart: Path | None = None
    annotate: Path | None = None
    report: Path | None = None
    smooth_s: float = SMOOTH_S

    @property
    def are_made(self) -> bool:
        """True if all files that are asked for exist."""
        return all(file.is_file() for file in (self.chart, self.annotate, self.report) if file is not None)

    def rows(self, video: str, timeline: Timeline, stop: Event | None = None) -> Iterator[Row]:
        """Give the rows of a video, and make the files meanwhile; they are there when all rows have been taken.

        Raises:
            ValueError: For an annotated video that cannot be written, see `write_annotated_video`.
            DamagedVideoError: As `timeline`, when the files show what could be read.
        """
        if self.annotate is not None:  # what cannot be written is refused now, not with the first row
            return self._kept(write_annotated_video(video, timeline, self.annotate), timeline)
        return self._kept(timeline(video, stop=stop), timeline)

    def _kept(self, rows: Iterator[Row], timeline: Timeline) -> Iterator[Row]:
        kept: list[Row] = []
        damage: DamagedVideoError | None = None
        try:
            for row in rows:
                if self.chart is not None or self.report is not None:
                    kept.append(row)
                yield row
        except DamagedVideoError as error:
            damage = error
        if kept and self.chart is not None:
            figure = draw_timeline(kept, timeline.class_names, note=timeline.note(), smooth_s=self.smooth_s)
            figure.savefig(self.chart)
        if kept and self.report is not None:
            write_report(self.report, kept, timeline, damage=str(damage or ""), smooth_s=self.smooth_s)
        if damage is not None:
            raise damage


class FolderOutputs:
    """A folder with a table of videos, a chart and a report of each, and an index of them.

    Args:
        folder: The folder.
        videos: All videos that are asked for; those of one name get a number.
        annotate: Suffix of annotated videos, see `write_annotated_video`; empty for none.
        smooth_s: See [`Outputs`].

    Attributes:
        table: The table of all rows.
        files: What is made of each video.
    """

    def __init__(self, folder: Path, videos: Iterable[str], annotate: str = "", smooth_s: float = SMOOTH_S) -> None:
        self.folder, self.smooth_s = folder, smooth_s
        self.table = folder / "rows.csv"
        self.files: dict[str, Outputs] = {}
        taken = {"index"}
        for video in videos:
            stem = name = Path(video).stem or "video"
            number = 1
            while name.casefold() in taken:
                number += 1
                name = f"{stem}_{number}"
            taken.add(name.casefold())
            self.files[video] = Outputs(
                folder / f"{name}.png",
                folder / f"{name}.annotated{annotate}" if annotate else None,
                folder / f"{name}.html",
                smooth_s,
            )

    def rows(self, video: str, timeline: Timeline, stop: Event | None = None) -> Iterator[Row]:
        """Give the rows of a video, and write its files meanwhile; see [`Outputs`]."""
        return self.files[video].rows(video, timeline, stop)

    def write_index(self, timeline: Timeline) -> list[str]:
        """Write `index.html` of all videos, by the rows of the table.

        Returns:
            Videos in the table that lack one of their files, because an earlier run, which read them, did not make it.
        """
        rows = [Row.from_dict(record, timeline.class_names) for record in read_table(self.table)]
        errors = {
            str(each["video"]): str(each["reason"]) for each in read_table(self.table.with_suffix(".errors.csv"))
        }
        write_index(self.folder / "index.html", self.files, rows, errors, timeline.note(), self.smooth_s)
        seen = {row.video for row in rows}
        return [video for video, outputs in self.files.items() if video in seen and not outputs.are_made]
