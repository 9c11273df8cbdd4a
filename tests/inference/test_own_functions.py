"""An own function is loaded from the installed environment, and from nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.errors import Interrupted, SettingsError
from worker.inference import own_functions
from worker.inference.own_functions import own_function


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    own_function.cache_clear()
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]
    own_function.cache_clear()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like that of installed packages."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    real = own_functions.installed_folders()
    monkeypatch.setattr(own_functions, "installed_folders", lambda: [folder, *real])
    monkeypatch.syspath_prepend(str(folder))
    return folder


def refusal(name: str) -> str:
    with pytest.raises(SettingsError) as caught:
        own_function(name)
    return str(caught.value)


def test_a_function_of_python_is_used() -> None:
    found = own_function("html:unescape")
    assert found("&amp;") == "&"
    assert found.name == "html:unescape"
    assert len(found.mark) == 12, "a digest of its module; Python has no version as a package"


def test_a_module_that_python_has_within_itself_is_used() -> None:
    assert own_function("os.path:basename")("a/b") == "b"
    assert own_function("sys:intern")("a") == "a"


def test_the_mark_has_the_version_of_its_package() -> None:
    assert own_function("emoji.core:demojize").mark.startswith("2.")


def test_an_installed_module_is_used_and_its_source_marks_it(packages: Path) -> None:
    (packages / "cleaner").mkdir()
    module = packages / "cleaner" / "texts.py"
    module.write_text("def short(text):\n    return text[:3]\n")
    first = own_function("cleaner.texts:short")
    assert first("abcdef") == "abc"
    own_function.cache_clear()
    module.write_text("def short(text):\n    return text[:4]\n")
    assert own_function("cleaner.texts:short").mark != first.mark


def test_a_file_of_the_current_directory_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted.py").write_text("raise SystemExit('run')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert "planted is not installed in" in refusal("planted:function")


def test_a_file_that_hides_an_installed_module_is_not_run(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (packages / "cleaner.py").write_text("def short(text):\n    return text\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "cleaner.py").write_text("raise SystemExit('run')\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    assert "cleaner.py hides the installed package cleaner" in refusal("cleaner:short")


def test_a_module_that_does_not_import_is_named(packages: Path) -> None:
    (packages / "broken.py").write_text("import sys\nsys.exit('no')\n")
    assert "the import of broken fails with SystemExit: no" in refusal("broken:function")
    assert "the import of broken.part fails" in refusal("broken.part:function")


def test_an_interrupt_during_the_import_ends_the_command(packages: Path) -> None:
    source = "from worker.errors import Interrupted\nraise Interrupted\n"
    (packages / "slow.py").write_text(source)
    with pytest.raises(Interrupted):
        own_function("slow:function")


def test_an_import_that_raises_an_interrupt_itself_is_named(packages: Path) -> None:
    (packages / "rude.py").write_text("raise KeyboardInterrupt\n")
    assert "the import of rude fails with KeyboardInterrupt" in refusal("rude:function")


_UNUSABLE = """
digits = "0123456789"
async def later(text): return text
async def streamed(text): yield text
def pieces(text): yield text
class Later:
    async def __call__(self, text): return text
called = Later()
class Now:
    def __call__(self, text): return text.lower()
lower = Now()
"""


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        ("missing", "does not exist"),
        ("digits", "is no function but of the type str"),
        ("later", "is a coroutine or a generator"),
        ("streamed", "is a coroutine or a generator"),
        ("pieces", "is a coroutine or a generator"),
        ("called", "is a coroutine or a generator"),
    ],
)
def test_a_function_that_can_return_no_text_is_refused(
    packages: Path, member: str, problem: str
) -> None:
    (packages / "unusable.py").write_text(_UNUSABLE)
    assert f"{member} of unusable {problem}" in refusal(f"unusable:{member}")


def test_an_object_that_can_be_called_is_used(packages: Path) -> None:
    (packages / "unusable.py").write_text(_UNUSABLE)
    assert own_function("unusable:lower")("A") == "a"


def test_a_users_packages_count_where_python_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_functions.site, "ENABLE_USER_SITE", True)
    own = Path(own_functions.site.getusersitepackages()).resolve()
    assert own in own_functions.installed_folders()
    monkeypatch.setattr(own_functions.site, "ENABLE_USER_SITE", False)
    assert own not in own_functions.installed_folders()
