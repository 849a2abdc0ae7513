"""Sheets, videos, plots and the report: what is written is what was given, whole or not at all."""

import base64
import itertools
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from wm_jax.render import plots, report, sheets, video, whole_file
from wm_jax.utils.errors import UserError


def pictures(count: int, seed: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_render_needs_no_jax_and_no_matplotlib_before_a_plot():
    code = "import sys, wm_jax.render.plots, wm_jax.render.video, wm_jax.render.report; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "wm_jax.render.sheets" in modules
    assert not {"jax", "matplotlib"} & set(modules)


# Whole files


def test_an_exception_leaves_no_file(tmp_path: Path):
    with pytest.raises(RuntimeError), whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_exception_keeps_the_file_that_was_there(tmp_path: Path):
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_video_leaves_no_file(tmp_path: Path):
    def frames():
        yield from pictures(5, 0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video.write_video(tmp_path / "v.mp4", frames(), 30)
    assert list(tmp_path.iterdir()) == []


# Sheets


@pytest.mark.parametrize(("count", "columns", "scale", "title"), [(11, 4, 2, ""), (3, 8, 1, "step 1,000")])
def test_sheet_shows_the_very_pixels(tmp_path: Path, count: int, columns: int, scale: int, title: str):
    real, decoded = pictures(count, 0), pictures(count, 1)
    path = sheets.reconstruction_sheet(real, decoded, tmp_path / "s.png", columns, scale, title)
    sheet = picture(path)
    layout = sheets.sheet_layout(real, columns, scale, title)
    assert sheet.shape == (layout.size[1], layout.size[0], 3)
    side = 64 * scale
    for row, frames in enumerate((real, decoded)):
        for index, frame in enumerate(frames):
            x, y = layout.corner(index, row)
            np.testing.assert_array_equal(
                sheet[y : y + side, x : x + side], np.kron(frame, np.ones((scale, scale, 1), np.uint8))
            )


def test_sheet_order_and_captions(tmp_path: Path):
    real, decoded = pictures(5, 0), pictures(5, 1)
    layout = sheets.sheet_layout(real, columns=2)
    corners = [layout.corner(index, 0) for index in range(5)]
    assert corners[0][1] == corners[1][1] < layout.corner(0, 1)[1] < corners[2][1]
    assert corners[0][0] == corners[2][0] < corners[1][0]
    sheet = picture(sheets.reconstruction_sheet(real, decoded, tmp_path / "s.png", columns=2))
    for index, row in itertools.product((0, 2, 4), (0, 1)):
        x, y = layout.corner(index, row)
        assert sheet[y : y + layout.tile_height, : x - 1].min() < 128, "a caption stands left of every row"
    assert (sheet[-1] == 255).all()


def test_sheet_refuses_what_is_no_picture(tmp_path: Path):
    good = pictures(2, 0)
    for real, decoded in [(good, good[:1]), (good / 255, good), (good[:0], good[:0]), (good[0], good[0])]:
        with pytest.raises(ValueError, match=r"real|decoded"):
            sheets.reconstruction_sheet(real, decoded, tmp_path / "s.png")
    assert list(tmp_path.iterdir()) == []


# Video

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (100, 200, 100), (30, 60, 90)]


@pytest.mark.parametrize("encoders", [video.ENCODERS, ("no such encoder", "mpeg4")])
def test_video_round_trip(tmp_path: Path, encoders: tuple[str, ...]):
    frames = np.stack([np.full((65, 43, 3), colour, np.uint8) for colour in COLOURS])
    frames[:, :32] = frames[:, :32] // 2
    written = video.write_video(tmp_path / "v.mp4", iter(frames), fps=12.5, encoders=encoders)
    assert (written.frames, written.width, written.height, written.fps) == (7, 44, 66, 12.5)
    back = video.extract_frames(written.path, range(7))
    assert back.shape == (7, 66, 44, 3)
    padded = np.pad(frames, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge").astype(int)
    away = np.r_[0:29, 35:66]  # from the edge, where halved colour resolution blurs
    assert np.abs(back[:, away] - padded[:, away]).max() <= 6
    with av.open(str(written.path)) as container:
        stream = container.streams.video[0]
        assert stream.frames == 7
        assert float(stream.average_rate or 0) == 12.5
        assert stream.pix_fmt == "yuv420p"


def test_video_is_h264_that_starts_before_it_is_loaded(tmp_path: Path):
    written = video.write_video(tmp_path / "v.mp4", pictures(4, 0), fps=60)
    assert written.encoder == "libx264", "the wheels of PyAV hold libx264"
    content = written.path.read_bytes()
    assert b"avc1" in content
    assert content.index(b"moov") < content.index(b"mdat")


def test_extract_frames_keeps_the_order_asked_for(tmp_path: Path):
    frames = np.stack([np.full((16, 16, 3), 20 * level, np.uint8) for level in range(10)])
    path = video.write_video(tmp_path / "v.mp4", frames, fps=30).path
    levels = video.extract_frames(path, [9, 0, 4, 4]).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, [180, 0, 80, 80], atol=3)
    with pytest.raises(IndexError, match="frame 10"):
        video.extract_frames(path, [3, 10])


def test_video_refuses_wrong_frames(tmp_path: Path):
    good = pictures(2, 0)
    mixed = [good[0], good[1][:32]]
    for frames, fps, message in [
        ([], 30, "at least one"), (mixed, 30, "frame 1"), (good / 255, 30, "frame 0"),
        (good[..., :1], 30, "frame 0"), (good[0], 30, "frame 0"), (good, 0, "fps"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            video.write_video(tmp_path / "v.mp4", frames, fps)
    with pytest.raises(UserError, match="encoder"):
        video.write_video(tmp_path / "v.mp4", good, 30, encoders=("nothing",))
    assert list(tmp_path.iterdir()) == []


def test_side_by_side_shows_both_frames_unchanged():
    real, decoded = pictures(2, 0, size=21)
    composed = video.side_by_side((real, decoded), scale=3, line="score 12")
    assert composed.shape[0] % 2 == composed.shape[1] % 2 == 0
    lefts = []
    for frame in (real, decoded):
        large = np.kron(frame, np.ones((3, 3, 1), np.uint8))
        windows = np.lib.stride_tricks.sliding_window_view(composed, large.shape)[:, :, 0]
        found = np.argwhere((windows == large).all(axis=(2, 3, 4)))
        assert len(found) == 1
        lefts.append(found[0])
    assert lefts[0][0] == lefts[1][0]
    assert lefts[1][1] >= lefts[0][1] + 63


def test_side_by_side_line_changes_the_text_alone():
    real, decoded = pictures(2, 0)
    empty, one, other = (video.side_by_side((real, decoded), line=line) for line in ("", "score 1", "score 2"))
    assert empty.shape == one.shape == other.shape
    changed = np.argwhere((one != other).any(axis=-1))
    assert len(changed)
    assert changed[:, 0].max() < 26, "the line lies above the captions"
    assert video.side_by_side((real, decoded)).shape[0] == empty.shape[0] - 26
    with pytest.raises(ValueError, match="one shape"):
        video.side_by_side((real, decoded[:32]))


# Plots


def has_colour(path: Path, colour: str) -> bool:
    pixels = picture(path).reshape(-1, 3).astype(int)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(pixels - wanted).max(axis=1) <= 4).sum() >= 20)


def test_loss_curves_draw_training_and_held_out_data(tmp_path: Path):
    train = [{"step": s, "time": 1.0 * s, "train_loss": 900 / s, "train_kl": float("nan")} for s in range(1, 1001)]
    held = [{"step": s, "test_loss": 950 / s, "test_kl": None} for s in range(100, 1001, 100)]
    both = plots.loss_curves(tmp_path / "both.png", train + held, "V")
    assert has_colour(both, plots.TRAINING)
    assert has_colour(both, plots.HELD_OUT)
    assert not has_colour(plots.loss_curves(tmp_path / "train.png", train), plots.HELD_OUT)
    assert picture(both).shape == picture(tmp_path / "train.png").shape, "measures without a finite number get no panel"
    with pytest.raises(ValueError, match="no measure"):
        plots.loss_curves(tmp_path / "none.png", [{"step": 1, "time": 3.0, "frames_per_second": 9.0}])
    assert not (tmp_path / "none.png").exists()


def test_measures_leave_out_bookkeeping():
    rows = [{"step": 1, "time": 2.0, "train_loss": 1.0, "frames_per_second": 3.0}, {"step": 2, "test_loss": 1, "kl": 2}]
    assert plots._measures(rows) == ["loss", "kl"]
    steps, values = plots._series([{"step": 5, "train_loss": 2.0}, {"step": 1, "loss": 3.0}], "train", "loss")
    assert (steps.tolist(), values.tolist()) == ([1, 5], [3, 2])


def test_score_history_draws_what_there_is(tmp_path: Path):
    rows = [{"generation": g, "best": g + 5.0, "mean": float(g), "min": g - 5.0} for g in range(1, 30)]
    plain = plots.score_history(tmp_path / "plain.png", rows)
    assert has_colour(plain, plots.POPULATION)
    assert not has_colour(plain, plots.RANDOM)
    assert not has_colour(plain, plots.AGENT)
    rows[9] |= {"evaluation": 11.0, "evaluation_error": 3.0}
    rows[19] |= {"evaluation": 22.0, "evaluation_error": None}
    with pytest.MonkeyPatch.context() as patch:
        drawn, draw = [], Axes.errorbar
        patch.setattr(Axes, "errorbar", lambda *at, **how: drawn.append(how["yerr"]) or draw(*at, **how))
        full = plots.score_history(tmp_path / "full.png", rows, random_score=-4.0)
    np.testing.assert_array_equal(drawn, [[3.0, np.nan]], "what has no error gets no bar, not one of length 0")
    assert has_colour(full, plots.RANDOM)
    assert has_colour(full, plots.AGENT)
    assert not has_colour(full, plots.DREAM)
    rows[9] |= {"dream": 30.0, "dream_error": 1.0}
    assert has_colour(plots.score_history(tmp_path / "dream.png", rows), plots.DREAM)
    plots.score_history(tmp_path / "one.png", [{"generation": 1, "mean": 1.0, "best": None}])
    with pytest.raises(ValueError, match="no generation"):
        plots.score_history(tmp_path / "none.png", [])


def test_score_histogram(tmp_path: Path):
    path = plots.score_histogram(tmp_path / "h.png", [10.5, 12.0, 14.0], [0.0, 0.5, 1.0])
    assert has_colour(path, plots.AGENT)
    assert has_colour(path, plots.RANDOM)
    assert not has_colour(plots.score_histogram(tmp_path / "alone.png", [3.0, 3.0]), plots.RANDOM)
    with pytest.raises(ValueError, match="no finite"):
        plots.score_histogram(tmp_path / "none.png", [float("nan")])


@pytest.mark.parametrize("values", [[0.0, 3.0, 117.0], [7.0], [2.5], [-1.25, 900.75], list(np.arange(24.0))])
def test_histogram_bins_hold_every_score(values: list[float]):
    edges = plots._bins(np.array(values))
    assert np.histogram(values, edges)[0].sum() == len(values)
    assert 1 <= len(edges) - 1 <= 25


# The report


class Page(HTMLParser):
    """Collects the tags with their attributes, and checks that every tag is closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def full_report(folder: Path, **changes) -> str:
    sheet = sheets.reconstruction_sheet(pictures(2, 0), pictures(2, 1), folder / "sheet.png")
    losses = plots.loss_curves(folder / "losses.png", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    film = video.write_video(folder / "film.mp4", pictures(3, 0), 30).path
    arguments = {
        "game": "Car Racing",
        "score": report.Score(826.6, 803.2, 848.1, 117.0, 100),
        "random_score": report.Score(-31.2, -33.0, -29.5, 9.0, 100),
        "references": {"solved": 900},
        "stages": [report.StageRow("Collect", 7620, {"frames": 9412345}), report.StageRow("Train V", done=False)],
        "scores": [report.Media(folder / "gone.png", "gone")],
        "video": report.Media(film, "the agent playing"),
        "reconstructions": report.Media(sheet, "frames and reconstructions", "caption"),
        "losses": [report.Media(losses, "losses of V")],
        "settings": {"game": "carracing", "vae": {"latent": 32, "final": None, "noise": True}},
        "provenance": {"versions": {"jax": "0.10.2"}, "seed": 0},
    }
    return report.write_report(folder / "report.html", **{**arguments, **changes}).read_text(encoding="utf-8")


def test_report_embeds_what_it_is_given(tmp_path: Path):
    page = Page(full_report(tmp_path))
    embedded = [tag["src"] or "" for tag in page.all("img") + page.all("video")]
    given = [tmp_path / "sheet.png", tmp_path / "losses.png", tmp_path / "film.mp4"]
    assert [base64.b64decode(source.partition("base64,")[2]) for source in embedded] == [p.read_bytes() for p in given]
    assert [source.partition(";")[0] for source in embedded] == ["data:image/png", "data:image/png", "data:video/mp4"]
    assert [tag["alt"] for tag in page.all("img")] == ["frames and reconstructions", "losses of V"]
    assert page.all("video")[0]["aria-label"] == "the agent playing"


def test_report_loads_nothing_from_elsewhere(tmp_path: Path):
    text = full_report(tmp_path)
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import|//\w", re.sub(r"base64,[\w+/=]+", "", text))
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "poster", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not page.all("script")
    policy = next(tag for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_report_says_what_it_knows(tmp_path: Path):
    text = full_report(tmp_path)
    for words in [
        "<h1>Car Racing</h1>", "826.6", "\N{MINUS SIGN}31.2", "95 % interval 803.2 to 848.1", "100 episodes",
        ">solved<", "2 h 7 min", "9,412,345", "not done", "A picture is missing: gone.png",
        "latent</th><td>32<", "jax 0.10.2",
    ]:  # fmt: skip
        assert words in text


def test_report_places_scores_in_proportion(tmp_path: Path):
    text = full_report(tmp_path, score=report.Score(50.0, 25.0, 75.0), random_score=None, references={"solved": 100})
    dots = [float(left) for left in re.findall(r'<b style="left:([\d.]+)%"', text)]
    zero = float(re.findall(r'<u style="left:([\d.]+)%"', text)[0])
    assert dots[0] - zero == pytest.approx((dots[1] - zero) / 2, abs=0.02)
    assert re.findall(r'<i style="left:([\d.]+)%;width:([\d.]+)%"', text) == [("26.0", "48.00")]


def test_report_of_nothing_is_plain_notes(tmp_path: Path):
    path = report.write_report(tmp_path / "r.html", game="Enduro")
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.all("img") + page.all("video") + page.all("table")
    for note in ["Not evaluated yet.", "No stage has run yet.", "No video.", "No reconstructions.", "Not recorded."]:
        assert note in path.read_text(encoding="utf-8")


def test_report_escapes_all_text(tmp_path: Path):
    evil = "\"'><script>alert(1)</script><img src=x>&"
    text = full_report(
        tmp_path,
        game=evil,
        subtitle=evil,
        unit=evil,
        confidence=evil,
        references={evil: 1.0},
        stages=[report.StageRow(evil, 1.0, {evil: evil})],
        scores=[report.Media(tmp_path / f"{evil.replace('/', '')}.png", evil)],
        video=report.Media(tmp_path / "film.mp4", evil, evil),
        reconstructions=report.Media(tmp_path / "sheet.png", evil, evil),
        settings={evil: evil, evil + "2": {evil: [evil, {evil: evil}]}},
        provenance={evil: {evil: Path(evil)}},
    )
    page = Page(text)
    assert len(page.all("img")) == 2
    assert not page.all("script")
    assert page.all("img")[0]["alt"] == evil


def test_report_links_a_large_video(tmp_path: Path):
    (tmp_path / "evaluation").mkdir()
    film = video.write_video(tmp_path / "evaluation" / "a film.mp4", pictures(3, 0), 30).path
    page = Page(full_report(tmp_path, video=report.Media(film, "the agent"), embed_limit=100))
    assert not page.all("video")
    assert [tag["href"] for tag in page.all("a")] == ["./evaluation/a%20film.mp4"]


def test_report_survives_scores_without_an_interval(tmp_path: Path):
    nan = float("nan")
    text = full_report(tmp_path, score=report.Score(12.0, nan, nan, nan, 1), random_score=report.Score(nan))
    assert "1 episode<" in text
    assert "nan%" not in text
    assert "interval" not in text


@pytest.mark.parametrize(
    ("episodes", "said"), [(5, "approximate 95 % interval 10.0 to 14.0"), (20, "<p>95 % interval")]
)
def test_report_says_which_intervals_are_approximate(episodes: int, said: str, tmp_path: Path):
    text = full_report(tmp_path, score=report.Score(12.0, 10.0, 14.0, 2.0, episodes), random_score=None)
    assert said in text and ("approximate" in text) == (episodes < 20)


def test_report_failure_leaves_no_file(tmp_path: Path):
    odd = tmp_path / "odd.xyz"
    odd.write_bytes(b"?")
    with pytest.raises(ValueError, match=r"odd\.xyz"):
        report.write_report(tmp_path / "r.html", game="x", losses=[report.Media(odd, "odd")])
    assert list(tmp_path.iterdir()) == [odd]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.2, "59.2 s"), (60, "1 min"), (185, "3 min 5 s"), (3599.8, "1 h"), (7620, "2 h 7 min"),
     (86399, "1 d"), (273_600, "3 d 4 h")],
)  # fmt: skip
def test_duration(seconds: float, words: str):
    assert report.duration(seconds) == words
