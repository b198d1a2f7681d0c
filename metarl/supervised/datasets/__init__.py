"""Image data sets in any of their common file formats, converted to one array of images."""
