"""The strip: one text line, cut out, merged over its frames and scaled so that a character is EM px wide.

The detector makes strips, the training renderer imitates them, the networks read them. Channel 0 is the mean over the
frames and channel 1 the minimum, both with bright text (dark text is inverted first).
"""

EM = 32  # px of one character width (SCW) in a strip
HEIGHT = 40  # rows of a strip: the em box, centred, with 4 px above and below
STRIDE = 4  # px between two positions where the networks look for a character: SCW / 8
