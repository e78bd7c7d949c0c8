"""Series: values of one or several channels at successive steps.

Arrays: ``series`` float32 ``[N, T, C]``, 0 where unknown; ``series_mask`` bool ``[N, T, C]``, which values are known; and, where
it is known when the steps were, ``series_times`` float32 ``[N, T]``, seconds since the first step that a row has. Rows end at the
last step: shorter ones are filled up in front.

Sizes: ``length`` ``T``, ``channels`` ``C``; ``center`` and ``scale``, one number a channel, if the values were standardised by
them; and ``horizon`` ``H`` in suites with forecasts.

A forecast of the next ``H`` steps is a ``regression`` task of size ``C * H`` in the user's units, all steps of the first channel
before those of the second: its loss is the squared error, and tables can hold it. A task over the positions ``steps`` is
something else: it has one answer for each of the ``T`` steps of the input.
"""

from graftwork.core.input_kinds import InputKind

__all__ = ["KIND"]

KIND = InputKind(
    name="series",
    noun="series",
    example="series.jsonl",
    encoder="graftwork.data.encoders.series:SeriesEncoder",
    trunk="graftwork.nn.backbones.series:series_trunk",
    trunk_summary="temporal convolutions, new",
    reader="graftwork.serving.series:SeriesReader",
)
