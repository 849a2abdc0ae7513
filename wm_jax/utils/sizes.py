"""The size of the frames that V sees: of everything stored, trained on and played."""

SIDE = 64
"""Height and width in pixels (Ha & Schmidhuber 2018, A.1). The networks' kernels are made for it."""
FRAME = (SIDE, SIDE, 3)
"""Shape of a frame: rows, columns, and red, green and blue."""
FRAME_BYTES = SIDE * SIDE * 3
"""Of uint8."""
