"""From predictions to verdicts: results, effects with their intervals, the words that they earn."""
