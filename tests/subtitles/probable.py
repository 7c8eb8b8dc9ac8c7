"""What a language model says of a whole line, for tests."""

import numpy as np

from tamis.subtitles import characters
from tamis.subtitles.language import END, LanguageModel


def log_probability(model: LanguageModel, text: str) -> float:
    """log P(the line, with its end), natural logarithm, one character after the other as the search asks."""
    contexts, total = model.begin(), 0.0
    for symbol in model.symbols(np.append(characters.encode(text), END)):
        log_p, following = model.extend(contexts, np.array([[symbol]]))
        contexts, total = following[:, 0], total + float(log_p[0, 0])
    return total
