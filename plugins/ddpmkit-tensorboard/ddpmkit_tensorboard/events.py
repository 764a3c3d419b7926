"""TensorBoard's event files as bytes: the same values always give the same bytes.

ddpmkit's records hold no times, so every event is dated 0 (1970); only the step axis means something.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
STATUS = {
    "done": api_pb2.STATUS_SUCCESS,
    "failed": api_pb2.STATUS_FAILURE,
    "unfinished": api_pb2.STATUS_UNKNOWN,
}


def scalar(tag: str, value: float, step: int = 0) -> Event:
    """Return a scalar event; TensorBoard keeps scalars in float32."""
    return _event(Summary.Value(tag=tag, simple_value=value), step)


def image(tag: str, pixels: Pixels) -> Event:
    """Return an image event of pixels (H, W, 3), stored as PNG."""
    height, width, channels = pixels.shape
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    png = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=buffer.getvalue())
    return _event(Summary.Value(tag=tag, image=png))


def hparams(values: Mapping[str, bool | float | str], group: str, status: str) -> list[Event]:
    """Return the two events that make a run a session of the HParams tab; sessions of one group are averaged there."""
    start = plugin_data_pb2.SessionStartInfo(group_name=group)
    for name, value in values.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, str):
            start.hparams[name].string_value = value
        else:
            start.hparams[name].number_value = value
    end = plugin_data_pb2.SessionEndInfo(status=STATUS[status])
    return [
        _session(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start)),
        _session(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end)),
    ]


def event_file(events: Iterable[Event]) -> bytes:
    """Return the bytes of an event file."""
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in (Event(file_version="brain.Event:2"), *events):
        writer.write(event.SerializeToString(deterministic=True))
    return buffer.getvalue()


def _event(value: Summary.Value, step: int = 0) -> Event:
    return Event(step=step, summary=Summary(value=[value]))


def _session(tag: str, data: plugin_data_pb2.HParamsPluginData) -> Event:
    # The map of hparams has no order of its own: the library's own bytes of it may change from process to process.
    described = metadata.create_summary_metadata(data)
    ordered = plugin_data_pb2.HParamsPluginData.FromString(described.plugin_data.content)
    described.plugin_data.content = ordered.SerializeToString(deterministic=True)
    return _event(Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR))
