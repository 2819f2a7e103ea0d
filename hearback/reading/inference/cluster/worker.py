"""A worker of a cluster: decodes rows of the test table, and scores them with loaded models."""

import contextlib
import csv
import io
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from hearback.engine.data.problems import Problem, Report
from hearback.engine.devices import choose_device, compute_dtype
from hearback.engine.io import read_json
from hearback.engine.machine import count_processors
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.batch_plan import batch_seconds, has_reference_windows
from hearback.reading.inference.cluster.decode import decode_chunk
from hearback.reading.inference.cluster.row_store import RowStore
from hearback.reading.inference.cluster.shards import (
    N_EVIDENCE,
    Chunk,
    Decoded,
    EnsemblePlan,
    InputFormat,
    ScoredRows,
    Shard,
    ShardScores,
    StoredRows,
    WordRows,
)
from hearback.reading.inference.folds import coverages_of_folds, longest_window, read_folds
from hearback.reading.inference.memory import memory_for_models
from hearback.reading.inference.model_group import ModelGroup, describe_group, load_model_groups
from hearback.reading.inference.outputs import InferenceOptions
from hearback.reading.inference.predict import score_with_words
from hearback.reading.inference.scoring_data import (
    ScoringData,
    open_references,
    render_references,
)
from hearback.reading.inference.statuses import find_statuses, report_statistics
from hearback.reading.pairings import WITH_TEXT_EMBEDDING
from hearback.reading.pairs import PairSource
from hearback.reading.passages.length import correct_long_rows, most_words_corrected
from hearback.reading.references import References
from hearback.reading.scoring import statistics
from hearback.reading.scoring.decoder_evidence import DecoderEvidence, EvidenceCollector
from hearback.reading.tables import metadata_path
from hearback.reading.window_coverage import Coverage
from hearback.reading.words import word_score_table


class ClusterWorker:
    """Holds one group of loaded models at a time; `cluster.run` calls its methods.

    Args:
        options: those of infer.py.
        gpu_share: its share of a GPU.
        n_cpus: its processors.
    """

    def __init__(self, options: InferenceOptions, gpu_share: float, n_cpus: float) -> None:
        self.options = options
        self.gpu_share = gpu_share
        self.n_threads = max(1, round(n_cpus))
        torch.set_num_threads(self.n_threads)
        self.device = choose_device(options.device)
        self.dtype = compute_dtype(self.device, options.precision)
        self.table = metadata_path(options.data, "test")
        self.config = EnsembleConfig.load(options.config)
        self.folds = read_folds(self.config, options.assets)
        self.n_loaded = 0
        self._loaded: tuple[int, ...] = ()
        self._models: ModelGroup | None = None

    @cached_property
    def formats(self) -> list[list[int]]:
        """The numbers of the folds of each input format, in the order in which they run."""
        by_format: dict[tuple[object, ...], list[int]] = {}
        for number, fold in enumerate(self.folds):
            by_format.setdefault(fold.input_format, []).append(number)
        return list(by_format.values())

    @property
    def hears_reference(self) -> bool:
        """Whether some model hears reference speech."""
        return any(fold.recipe.hears_reference for fold in self.folds)

    @cached_property
    def references(self) -> References | None:
        """The reference speech; None if no model hears it."""
        if not self.hears_reference or self.config.voice is None:
            return None
        return open_references(self.options.tts_data, self.config.voice)

    def plan(self, _: None) -> EnsemblePlan:
        """Return what the ensemble's folds need."""
        seconds = batch_seconds(self.device)
        formats = []
        for numbers in self.formats:
            pair = self.folds[numbers[0]].recipe.pair
            formats.append(InputFormat(tuple(numbers), seconds, has_reference_windows(pair)))
        pairs = [fold.recipe.pair for fold in self.folds]
        return EnsemblePlan(
            tuple(formats),
            self.hears_reference and self.config.voice is not None,
            any(pair in WITH_TEXT_EMBEDDING for pair in pairs),
            "tokens" in pairs,
            statistics.N_MEASURED,
        )

    def render(self, texts: Sequence[str]) -> Mapping[str, str]:
        """Render the missing references; return why each text that has none has none."""
        assert self.config.voice is not None
        return render_references(texts, self.options.tts_data, self.config.voice, progress=False)

    def decode(self, chunk: Chunk) -> Decoded | None:
        """Decode a chunk; None if files are missing, or spelled otherwise, and none were given.

        Which file such a name stands for depends on the other rows.
        """
        return decode_chunk(
            chunk,
            self.options,
            recipes=[self.folds[numbers[0]].recipe for numbers in self.formats],
            coverages=self._coverages,
            references=self.references,
            longest=self._longest,
            n_threads=self.n_threads,
        )

    @property
    def _longest(self) -> int:
        """Number of samples at which recordings of over 16 s are cut."""
        return longest_window(self.folds)

    @property
    def _coverages(self) -> list[Coverage]:
        """What the models' windows cover."""
        return coverages_of_folds(self.folds)

    def fit(self, numbers: tuple[int, ...]) -> tuple[int, str]:
        """Load as many of the folds as fit in memory, at least one; return how many, and a line."""
        budget = memory_for_models(self.device, self.options.memory_gb)
        if self.options.memory_gb is None:  # others may be on this machine
            on_gpu = self.device.type == "cuda"
            share = self.gpu_share if on_gpu else self.n_threads / count_processors()
            budget *= min(1.0, share)
        group = self._load(numbers, budget)
        folds = [self.folds[number] for number in self._loaded]
        return len(folds), describe_group(group, folds, budget)

    def _load(self, numbers: tuple[int, ...], max_bytes: float) -> ModelGroup:
        """Replace the loaded models by the first group of these folds that fits in `max_bytes`."""
        if self._models is not None:
            self._models.clear()  # before the next ones: no worker has two copies
        folds = [self.folds[number] for number in numbers]
        # No reference to the generator: it may hold a model that does not fit.
        self._models, loaded = next(load_model_groups(folds, self.device, self.dtype, max_bytes))
        self.n_loaded += len(loaded)
        self._loaded = numbers[: len(loaded)]
        return self._models

    def score(self, shard: Shard) -> ShardScores:
        """Return the scores of a shard's rows."""
        group, models = shard.group, self._models
        if models is None or self._loaded != group.folds:
            models = self._load(group.folds, float("inf"))
        if group.texts is not None and (embedder := models.models[0].embedder) is not None:
            embedder.embed(read_json(Path(group.texts)))
        data = self._scoring_data(shard.stored)
        score_words = score_with_words(shard.n_positions)
        collector = EvidenceCollector(score_words, with_times=False)
        score_fn = collector if group.collects_evidence else score_words
        values: dict[int, np.ndarray] = {}
        rows = np.arange(len(shard.rows))
        for batch in models.run(
            data.source, rows, shard.batches, score_fn, n_workers=self.options.workers
        ):
            for number, found in batch.values.items():
                kept = found if shard.with_words else found[:, :1]
                if number not in values:
                    values[number] = np.full((len(rows), kept.shape[1]), np.nan)
                values[number][batch.indices] = kept
        of_folds = [
            (self.folds[group.folds[number]].files.model, values[number])
            for number in sorted(values)
        ]
        evidence = pack_evidence(collector.evidence, len(rows)) if collector.evidence else None
        return ShardScores(sum_by_model(of_folds, group.started), evidence)

    def _scoring_data(self, stored: StoredRows) -> ScoringData:
        """Return some rows as one process has all of them."""
        source = PairSource(stored.metadata, self.references, RowStore(stored))
        return ScoringData([], {}, stored.metadata, source.with_longest(self._longest))

    def correct(self, arguments: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Return (rows,) probabilities, corrected for the length of the texts.

        `arguments` are the probabilities, the numbers of samples and of words, (rows,) each.
        """
        most_words = most_words_corrected(self.config)
        return correct_long_rows(*arguments, longest=self._longest, most_words=most_words)

    def check(self, scored: ScoredRows) -> tuple[list[str], list[Problem], bool]:
        """Return the status of each row, problems, and whether all recordings are synthetic."""
        report = Report()
        evidence = unpack_evidence(scored.evidence)
        data = self._scoring_data(scored.stored)
        found = find_statuses(data, scored.probabilities, evidence, self.table, report)
        is_synthetic = statistics.is_synthetic(data.source.filenames)
        return found, report.problems, is_synthetic

    def describe(self, arguments: tuple[StoredRows, bool]) -> tuple[str, list[Problem]]:
        """Return what to print and to report on how rows are unlike those of the training.

        `arguments` are the measured rows, and whether all recordings are synthetic.
        """
        stored, is_synthetic = arguments
        report, printed = Report(), io.StringIO()
        source = self._scoring_data(stored).source
        with contextlib.redirect_stdout(printed):
            report_statistics(
                self.options.assets,
                self.folds,
                lambda: {**statistics.describe(source), "synthetic": is_synthetic},
                self.table,
                report,
            )
        return printed.getvalue(), report.problems

    def write_words(self, rows: WordRows) -> tuple[str, int]:
        """Return the lines of the rows' words, and their number."""
        assert self.config.words is not None
        metadata = rows.metadata
        table = word_score_table(
            metadata["filename"].tolist(),
            metadata["expected_text"].tolist(),
            self.config.words.apply(rows.log_odds),
            metadata["written_text"].tolist(),
            rows.statuses,
        )
        quoting = csv.QUOTE_NONNUMERIC if rows.quotes_texts else csv.QUOTE_MINIMAL
        text = table.to_csv(
            index=False, header=rows.number == 0, lineterminator="\n", quoting=quoting
        )
        return text, len(table)


def sum_by_model(
    of_folds: Iterable[tuple[str, np.ndarray]], started: Container[str]
) -> Sequence[tuple[str, np.ndarray]]:
    """Return what to add to the models' sums, such that the order of additions is always one.

    Args:
        of_folds: the model and the scores of each fold, in the folds' order.
        started: models with folds in an earlier group; theirs are not summed here.
    """
    sums: dict[str, np.ndarray] = {}
    separate: list[tuple[str, np.ndarray]] = []
    for model, scores in of_folds:
        if model in started:
            separate.append((model, scores))
        else:
            sums[model] = sums[model] + scores if model in sums else scores
    return [*sums.items(), *separate]


def pack_evidence(evidence: Mapping[int, DecoderEvidence], n_rows: int) -> np.ndarray:
    """Return the evidence by row, (rows, N_EVIDENCE) float64, without times; NaN if unknown."""
    packed = np.full((n_rows, N_EVIDENCE), np.nan)
    for row, found in evidence.items():
        numbers = (found.n_words, found.no_speech, found.surprise, found.confidence)
        packed[row] = (*numbers, found.is_multilingual)
    return packed


def unpack_evidence(packed: np.ndarray) -> dict[int, DecoderEvidence]:
    """Return the evidence that `pack_evidence` packed, by row."""
    found = {}
    for row in np.flatnonzero(~np.isnan(packed[:, 0])).tolist():
        n_words, *nats, is_multilingual = packed[row].tolist()
        evidence = DecoderEvidence(int(n_words), *nats)
        found[row] = replace(evidence, is_multilingual=bool(is_multilingual))
    return found
