"""The versions of a corpus: as it was built, and one more for every time that documents were added.

The newest is in `manifest.json`. The one before it stays in `manifest.vN.json`, and everything that it names
stays where it is, so a run that began with a version can end with it.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.corpus.manifest import MANIFEST_FILE, Manifest, parse_manifest, version_file
from pipeline.corpus.places import Place
from pipeline.errors import CorpusError


def read_version(
    read: Callable[[str], Manifest], where: str, *, version: int | None, fingerprint: str | None
) -> Manifest:
    """The manifest of one version of the corpus at `where`; the newest, unless one is asked for.

    `read` gets the file of this name. A version is asked for by its number or its fingerprint; `CorpusError`
    when there is none such.
    """
    newest = read(MANIFEST_FILE)
    if fingerprint is not None:
        version = number_of(newest, fingerprint)
        if version is None:
            raise CorpusError(
                f"{where} changed under way: it was corpus {fingerprint[:12]}, it is "
                f"{newest.fingerprint[:12]} now. Start again from a corpus that stays as it is."
            )
    if version is not None and not hasattr(version, "__index__"):
        raise TypeError(
            f"version={version!r} must be a whole number, such as 1, or None for the newest."
        )
    if version is None or version == newest.version:
        return newest
    if not 1 <= version < newest.version:
        has = f"the versions 1 to {newest.version}" if newest.added else "version 1 only"
        raise CorpusError(f"{where} has {has}; there is no version {version}.")
    older = read(version_file(version))
    if older.fingerprint != newest.earlier[version - 1]:
        raise CorpusError(
            f"{version_file(version)} of {where} is corpus {older.fingerprint[:12]}, where version {version} "
            f"was {newest.earlier[version - 1][:12]}: it was replaced. Fetch the corpus again."
        )
    return older


def publish_version(place: Place, manifest: Manifest) -> None:
    """Make `manifest`, all of whose files are in `place`, the newest version there.

    Until the last write, which is atomic, everybody sees the version before. `CorpusError` when the one that
    it follows is not the newest any more.
    """
    content = place.read(MANIFEST_FILE)
    before = parse_manifest(content, where=place.address(MANIFEST_FILE))
    if before.fingerprint != manifest.earlier[-1]:
        raise CorpusError(
            f"{place.url} changed under way: documents were to be added to {manifest.earlier[-1][:12]}, it "
            f"is {before.fingerprint[:12]} now. Add them again."
        )
    place.write(version_file(before.version), content)
    place.write(MANIFEST_FILE, manifest.to_json().encode())


def number_of(newest: Manifest, fingerprint: str) -> int | None:
    """Number of the version that has this fingerprint, if it is `newest` or one that it follows."""
    fingerprints = (*newest.earlier, newest.fingerprint)
    return fingerprints.index(fingerprint) + 1 if fingerprint in fingerprints else None


def advice(newest: Manifest, fingerprint: str | None) -> str:
    """What to do about something saved on the version with this `fingerprint`, as a sentence; or nothing."""
    if fingerprint not in newest.earlier:
        return ""
    version = newest.earlier.index(fingerprint) + 1
    return (
        f" Documents were added to the corpus since: open its version {version}, with "
        f"open_corpus(…, version={version}) or --version {version}."
    )
