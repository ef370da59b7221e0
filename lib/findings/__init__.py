"""Rules that write the sentences of a report from its numbers: each returns a sentence, or nothing."""
