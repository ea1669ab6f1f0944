"""Images and labels from folders, archives, packed data sets and `.npz` files, as training and evaluation read them."""

from evaluation.images.reader.errors import ReadError
from evaluation.images.reader.reading import Images, Resize, read_images, read_splits

__all__ = ["Images", "ReadError", "Resize", "read_images", "read_splits"]
