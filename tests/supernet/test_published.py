"""OFA's published supernets: by name, fetched and resumed over HTTP, verified, and evaluated at their own sizes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from riwoa.config.loading import load
from riwoa.ctl import main
from riwoa.datasets.catalogue import task_of
from riwoa.errors import ConfigError, InputError
from riwoa.oracle.kinds import build_oracle
from riwoa.oracle.supernet import supernet_spec
from riwoa.oracle.supernet_oracle import SupernetOracle, checkpoint_path
from riwoa.supernet.fetch import download, pull
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.network import Supernet, build_network
from riwoa.supernet.ofa_import import import_ofa
from riwoa.supernet.published import PUBLISHED, recorded_file, sha256_of
from riwoa.supernet.space import OfaConfig, mobilenet_space
from riwoa.supernet.spec import SupernetSpec
from riwoa.supernet.training import load_trained

NAME = "ofa_mbv3_d234_e346_k357_w1.0"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RIWOA_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "models" / "supernets"


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of width 1.0 as the authors wrote theirs: old key names, old container, no extension."""
    weights = build_network(Backbone(1.0, 1000), seed=5).state_dict()
    old = {
        k.replace(".conv.inverted", ".mobile_inverted_conv.inverted").replace(".bn.bn.", ".bn."): t
        for k, t in weights.items()
    }
    assert old.keys() != weights.keys()
    path = tmp_path_factory.mktemp("official") / NAME
    torch.save({"state_dict": old}, path, _use_new_zipfile_serialization=False)
    return path


@dataclass
class Site:
    """What a server gives, how often it was asked, and where it breaks off."""

    content: bytes
    tag: str | None = '"one"'
    breaks_after: int | None = None
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.ranges.append(asked)
            start = 0
            if self.path != "/file":
                self.send_error(404)
                return
            if asked is not None and self.headers.get("If-Range") == site.tag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(site.content):
                    self.send_error(416)
                    return
            self.send_response(206 if start else 200)
            if site.tag is not None:
                self.send_header("ETag", site.tag)
            self.send_header("Content-Length", str(len(site.content) - start))
            self.end_headers()
            self.wfile.write(site.content[start : site.breaks_after])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/file"
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ignore(*_: object) -> None:
    """A listener that does not care."""


def content(size: int = 700_000) -> bytes:
    return np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_name_brings_its_width_classes_and_resolutions_and_only_the_last_may_differ() -> None:
    oracle = load(None, [f"oracle.supernet.checkpoint={NAME}"], {}).config.oracle
    settings = oracle.supernet
    assert (settings.width_mult, settings.n_classes, settings.resolutions) == (1.0, 1000, (128, 160, 192, 224))
    assert supernet_spec(oracle).checkpoint == NAME
    wide = load(
        None, ["oracle.supernet.checkpoint=ofa_mbv3_d234_e346_k357_w1.2", "oracle.supernet.resolutions=[128]"], {}
    ).config.oracle
    assert (wide.supernet.width_mult, wide.supernet.resolutions) == (1.2, (128,))
    with pytest.raises(
        ConfigError, match=r"oracle\.supernet\.width_mult = 0\.25, but ofa_mbv3.* has 1\.0; leave it out"
    ):
        load(None, [f"oracle.supernet.checkpoint={NAME}", "oracle.supernet.width_mult=0.25"], {})


@pytest.mark.parametrize("name", ["ofa_proxyless_d234_e346_k357_w1.3", "ofa_resnet50"])
def test_another_family_is_refused_by_name_with_what_works(name: str) -> None:
    with pytest.raises(ConfigError, match=f"one of {NAME}, .*: {name} is a .*MobileNetV3 alone"):
        load(None, [f"oracle.supernet.checkpoint={name}"], {})
    with pytest.raises(InputError, match=f"one of {NAME}"):
        pull(name, ignore, check=ignore)
    with pytest.raises(InputError, match="there is no published supernet 'ofa_x'; there are ofa_mbv3"):
        pull("ofa_x", ignore, check=ignore)


def test_one_that_was_not_pulled_says_how(home: Path) -> None:
    with pytest.raises(InputError, match=f"run `riwoactl supernet pull {NAME}`, or put it in {home}"):
        checkpoint_path(SupernetSpec(checkpoint=NAME))


def test_a_proxyless_file_under_another_name_is_refused_with_the_weight(tmp_path: Path) -> None:
    ofa = import_ofa()
    assert hasattr(ofa, "OFAMobileNetV3")
    from ofa.imagenet_classification.elastic_nn.networks import OFAProxylessNASNets

    net = OFAProxylessNASNets(
        n_classes=10, width_mult=0.25, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]
    )
    torch.save({"state_dict": net.state_dict()}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"shape|unknown weight") as caught:
        Supernet.load(tmp_path / "a.pth", 0.25, 10)
    assert "must be a Once-for-All MobileNetV3" in str(caught.value)


# -- fetching ----------------------------------------------------------------------------------------------------------


def test_a_pulled_file_is_recorded_and_a_later_change_refused(home: Path) -> None:
    with serving(Site(content())) as site:
        path = pull(NAME, ignore, url=site.url, check=ignore)
        assert path.read_bytes() == site.content
        assert recorded_file(path).read_text() == f"{sha256_of(path)}  {NAME}.pth\n"
        assert sorted(f.name for f in home.iterdir()) == [".lock", f"{NAME}.pth", f"{NAME}.pth.sha256"]
        assert pull(NAME, ignore, url=site.url, check=ignore) == path
        assert len(site.ranges) == 1
    assert checkpoint_path(SupernetSpec(checkpoint=NAME)) == path
    path.write_bytes(content()[:-1] + b"x")
    with pytest.raises(InputError, match="it changed since it was pulled"):
        checkpoint_path(SupernetSpec(checkpoint=NAME))


def test_a_download_that_broke_off_continues_where_it_was(home: Path) -> None:
    with serving(Site(content(), breaks_after=300_000)) as site:
        with pytest.raises(InputError, match=r"broke off after 300,000 of 700,000 bytes; pull again, it continues"):
            pull(NAME, ignore, url=site.url, check=ignore)
        site.breaks_after = None
        assert pull(NAME, ignore, url=site.url, check=ignore).read_bytes() == site.content
        assert site.ranges == [None, "bytes=300000-"]


@pytest.mark.parametrize("tag", ['"two"', None, 'W/"one"'])
def test_a_file_that_changed_at_its_server_begins_anew(home: Path, tag: str | None) -> None:
    with serving(Site(content(), breaks_after=300_000)) as site:
        with pytest.raises(InputError, match="broke off"):
            pull(NAME, ignore, url=site.url, check=ignore)
        site.content, site.tag, site.breaks_after = content(500_000)[::-1], tag, None
        assert pull(NAME, ignore, url=site.url, check=ignore).read_bytes() == site.content


def test_more_than_the_whole_file_on_the_disk_is_dropped(tmp_path: Path) -> None:
    with serving(Site(content(1000))) as site:
        (tmp_path / "a").write_bytes(content(2000))
        (tmp_path / "a.tag").write_text('"one"')
        download(site.url, tmp_path / "a", ignore)
        assert (tmp_path / "a").read_bytes() == site.content


def test_another_file_than_the_known_hash_or_the_check_wants_is_not_kept(home: Path) -> None:
    def refuse(path: Path, _: object) -> None:
        raise InputError(f"{path.stat().st_size} bytes are no supernet")

    with serving(Site(content())) as site:
        with pytest.raises(InputError, match=r"gave a file of SHA-256 .* not 00"):
            pull(NAME, ignore, url=site.url, check=ignore, sha256="00")
        with pytest.raises(InputError, match="gave no such supernet: 700000 bytes"):
            pull(NAME, ignore, url=site.url, check=refuse)
        assert [f.name for f in home.iterdir()] == [".lock"]


def test_what_is_no_file_on_a_server_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Site(content())) as site:
        with pytest.raises(InputError, match=r"\(HTTP 404\); check the connection"):
            download(site.url + "s", tmp_path / "a", ignore)
        monkeypatch.setattr("riwoa.supernet.fetch.MOST_BYTES", 1000)
        with pytest.raises(InputError, match="no supernet of OFA's"):
            download(site.url, tmp_path / "a", ignore)
        url = site.url
    with pytest.raises(InputError, match=r"\(Connection refused\)"):
        download(url, tmp_path / "a", ignore)
    with pytest.raises(InputError, match="no address"):
        download("file:///etc/passwd", tmp_path / "a", ignore)


def test_pull_checks_that_it_is_that_supernet(official: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Site(official.read_bytes())) as site:
        assert main(["supernet", "pull", "ofa_mbv3_d234_e346_k357_w1.2", "--from", site.url]) == 66
        assert "size mismatch for" in capsys.readouterr().err
        assert main(["supernet", "pull", NAME, "--from", site.url]) == 0
    assert sha256_of(home / f"{NAME}.pth") == sha256_of(official)


# -- evaluating --------------------------------------------------------------------------------------------------------


def test_the_file_without_an_extension_can_be_named_by_its_path(official: Path) -> None:
    loaded = Supernet.load(official, 1.0, 1000)
    assert (
        loaded.weights_sha256()
        == Supernet(build_network(Backbone(1.0, 1000), seed=5), loaded.backbone).weights_sha256()
    )


def test_the_tools_know_a_published_supernet_by_the_name_of_its_file(official: Path, tmp_path: Path) -> None:
    pulled = tmp_path / f"{NAME}.pth"
    pulled.symlink_to(official)
    for path in (official, pulled):
        supernet, recipe = load_trained(path)
        assert supernet.backbone == Backbone(1.0, 1000)
        assert (recipe.width_mult, recipe.n_classes, recipe.stem) == (1.0, 1000, "imagenet")
        assert recipe.resolutions == PUBLISHED[NAME].settings["resolutions"]


@pytest.fixture(scope="module")
def thousand_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small picture a class; the first twenty have one to train on."""
    root = tmp_path_factory.mktemp("imagenet")
    for c in range(1000):
        for split in ("train", "val")[c >= 20 :]:
            place = root / split / f"n{c:08}"
            place.mkdir(parents=True)
            pixels = np.random.default_rng([c, split == "val"]).integers(0, 256, (9, 8, 3), np.uint8)
            Image.fromarray(pixels).save(place / "a.png")
    return root


def test_a_published_supernet_is_evaluated_on_a_folder_as_ofa_does(
    official: Path, home: Path, thousand_classes: Path
) -> None:
    home.mkdir(parents=True)
    (home / f"{NAME}.pth").write_bytes(official.read_bytes())
    sets = [
        f"oracle.supernet.checkpoint={NAME}",
        f"oracle.supernet.data={thousand_classes}",
        "oracle.supernet.resolutions=[128]",
    ]
    sets += [
        "oracle.supernet.validation_images=24",
        "oracle.supernet.recalibration_images=16",
        "oracle.supernet.dtype=float32",
    ]
    spec = supernet_spec(load(None, sets, {}).config.oracle)
    oracle = build_oracle(spec.to_json())
    assert isinstance(oracle, SupernetOracle)
    metrics = oracle.evaluate(mobilenet_space((128,)).architecture(np.zeros(46, dtype=np.int64)))
    assert metrics["images"] == 24

    task, ofa = task_of(spec), import_ofa()
    smallest = OfaConfig((3,) * 20, (3,) * 20, (2,) * 5, 128)
    net = Supernet.load(official, 1.0, 1000).get_net_for_config(smallest)
    ofa.set_running_statistics(net, [(torch.from_numpy(task.recalibration(128, 16)[:]), torch.zeros(16))])
    with torch.inference_mode():
        expected = net.eval()(torch.from_numpy(task.views("validation", 128, 1)[0][:]))
    torch.testing.assert_close(oracle._evaluator.logits(smallest), expected, rtol=0, atol=1e-3)
    assert expected.std() > 0.01  # much more than the tolerance


def test_the_packages_own_cifar_supernet_is_there_whole_and_its_recipe_agrees_with_its_settings() -> None:
    net = PUBLISHED["riwoa_cifar100_w0.25"]
    supernet, recipe = load_trained(checkpoint_path(SupernetSpec(checkpoint=net.name)))
    assert net.path.stat().st_size < 2 * 2**20
    assert supernet.backbone == Backbone(0.25, 100)
    assert {name: getattr(recipe, name) for name in net.settings} == dict(net.settings)
    oracle = load(None, [f"oracle.supernet.checkpoint={net.name}"], {}).config.oracle
    assert (oracle.supernet.n_classes, oracle.supernet.resolutions) == (100, (24, 28, 32))
