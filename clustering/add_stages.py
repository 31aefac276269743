"""The stages of an addition: those of a build, with the corpus's own tree, tokenizer and embedding model.

What a build works out is brought along instead: what is known already (in place of duplicates and roles), the
models, and what samples and shards are like. Reading and embedding, tokens and shards are as in a build.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from clustering.add_config import AddConfig
from clustering.config import BuildConfig
from clustering.corpus.added_segment import write_segment
from clustering.corpus.baseline import EMBEDDER_FOLDER, STATIC_MODEL, read_digests
from clustering.corpus.corpus_models import corpus_tokenizer, corpus_tree, recorded_choice
from clustering.documents.input_files import InputFile
from clustering.documents.known_texts import KnownTexts
from clustering.documents.new_documents import find_new, keep_new
from clustering.embedding.embedding_parts import EmbeddingParts
from clustering.embedding.model_check import check_device, check_model
from clustering.errors import ModelError
from clustering.shared_stages import SharedStages
from clustering.trees.fitting import FIT
from clustering.work.stages import Workspace, published
from pipeline import Corpus
from pipeline.corpus.manifest import Manifest
from pipeline.corpus.places import LocalPlace
from pipeline.corpus.segments import appended, segment_folder
from pipeline.corpus.versions import publish_version


class AddStages(SharedStages):
    """One addition: call `run`."""

    def __init__(self, config: AddConfig, corpus: Corpus, work: Workspace) -> None:
        super().__init__(build_config(config, corpus), work)
        self.corpus = corpus
        self.texts = config.texts

    @cached_property
    def inputs(self) -> list[InputFile]:
        """The files of all that was named; one that is named twice counts once."""
        files = [file for texts in self.texts for file in self.found(texts)]
        return list({file.place: file for file in files}.values())

    @property
    def num_new(self) -> int:
        """Documents that are added."""
        return int(self._fact("roles", "corpus"))

    @property
    def num_known(self) -> int:
        """Documents that are left out, because their text is there."""
        return len(self.documents) - self.num_new

    def run(self) -> Manifest:
        """The flow. Each line is a stage; returns the manifest of the newest version."""
        self.read()
        self.dedupe()
        self.roles()
        if not self.num_new:
            return self.corpus.manifest
        self.distill()
        self.embed()
        self.fit()
        self.assign()
        self.tokenizer()
        self.tokenize()
        self.order()
        self.plan()
        self.write()
        return self.finish()

    def check(self) -> None:
        """The static model comes with the corpus; nothing else can be wrong before the reading."""
        if "embed" in self.done:
            return
        if self.config.engine == "local":
            check_device(self.place)
        if not self.choice.is_static:
            check_model(self.choice)

    def dedupe(self) -> None:
        """Which documents are new."""
        depends_on = {**self._keys("read"), "corpus": self.corpus.fingerprint}
        with self._stage("dedupe", depends_on, total=len(self.documents)) as stage:
            if stage.todo:
                known = KnownTexts(read_digests(self.corpus.path, self.corpus.manifest))
                stage.facts["remain"] = find_new(self.store, self.documents, known)
                stage.advance(len(self.documents))

    def roles(self) -> None:
        """All that are new are for the corpus."""
        with self._stage("roles", self._keys("dedupe")) as stage:
            if stage.todo:
                stage.facts["corpus"] = keep_new(self.store)

    def distill(self) -> None:
        """The static embedding model that came with the corpus."""
        folder = self.corpus.path / EMBEDDER_FOLDER
        depends_on = {"static": self.choice.is_static, "corpus": self.corpus.fingerprint}
        with self._stage(STATIC_MODEL, depends_on) as stage:
            if stage.todo and self.choice.is_static:
                for path in sorted(folder.glob(f"{STATIC_MODEL}/**/*")):
                    if path.is_file():
                        self.store.publish(path.relative_to(folder).as_posix(), path.read_bytes())

    def fit(self) -> None:
        """The tree of the corpus."""
        with self._stage("fit", self._keys("embed")) as stage:
            if stage.todo:
                tree = corpus_tree(self.corpus)
                self._check_tree(tree.centroids[0].shape[1])
                for name, array in tree.arrays().items():
                    self.store.publish_array(FIT + name, array)

    def _check_tree(self, expected: int) -> None:
        """A corpus that was built from vectors made elsewhere may record a model that did not make them."""
        found = EmbeddingParts(self.store).dimensions
        if found != expected:
            raise ModelError(
                f"the tree of {self.corpus.address} was fitted on vectors of {expected} numbers, but the "
                f"model that it names, {self.choice.model}, makes some of {found}: new documents cannot be "
                "placed. Build it again with the --model that made its --embeddings."
            )

    def tokenizer(self) -> None:
        """The tokenizer of the corpus."""
        with self._stage("tokenizer", {"corpus": self.corpus.fingerprint}) as stage:
            if stage.todo:
                corpus_tokenizer(self.corpus).save(self.store)

    def finish(self) -> Manifest:
        """The segment into the corpus folder; the manifest last."""
        corpus = self.corpus
        folder = corpus.path / segment_folder(corpus.manifest.version + 1)
        folder.parent.mkdir(exist_ok=True)
        with self._stage("finish", self._keys("write"), unit="files"):
            with published(folder) as partial:
                segment, samples = write_segment(
                    corpus,
                    self.store,
                    self.documents,
                    partial,
                    empty_documents=self._fact("read", "empty"),
                    known_documents=self.num_known,
                )
            sizes = corpus.domains(k=corpus.num_leaves).sizes + samples
            empty_leaves = int(np.count_nonzero(sizes == 0))
            manifest = appended(corpus.manifest, segment, empty_leaves=empty_leaves)
            publish_version(LocalPlace(corpus.path), manifest)
        return manifest


def build_config(config: AddConfig, corpus: Corpus) -> BuildConfig:
    """The options that make new documents what those of the corpus are."""
    manifest = corpus.manifest
    choice = recorded_choice(corpus, model=config.model)
    return BuildConfig(
        corpus=config.texts[0],
        out=corpus.path,
        text_column=config.text_column,
        on_bad_input=config.on_bad_input,
        model=choice.model,
        dtype=choice.dtype,
        backend=choice.backend,
        device=config.device,
        tokens_per_sample=corpus.tokens_per_sample,
        format="mds" if manifest.shard_format == "mds" else "webdataset",
        block_bytes=manifest.blocks.block_bytes,
        workers=config.workers,
        engine=config.engine,
        ray_address=config.ray_address,
        seed=int(manifest.build.get("seed", 0)),
        part_documents=config.part_documents,
    )
