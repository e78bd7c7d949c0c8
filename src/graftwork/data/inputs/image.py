"""Square pictures.

Array: ``image`` uint8 ``[N, S, S, 3]``, RGB. Size: ``image_size``, the side ``S`` in pixels.
"""

from graftwork.core.input_kinds import InputKind

__all__ = ["KIND"]

KIND = InputKind(
    name="image",
    noun="pictures",
    example="pictures/",
    encoder="graftwork.data.encoders.image:ImageEncoder",
    trunk="graftwork.nn.backbones.scratch:image_trunk",
    trunk_summary="small convolutional network, new",
    reader="graftwork.serving.pictures:PictureReader",
    predicted_rows=64,
)
