"""Registration: maps each pixel of an optical image to a SAR image, and says whether to trust the result.

Points are float64 [N, 2], (row, column), in pixels; whole numbers are the centres of pixels and (0, 0)
is the centre of the first pixel. A transform maps points of the optical image to points of the SAR image.
"""
