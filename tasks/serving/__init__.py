"""What a project serves: which lessons there are, which of them answer, and answers to single questions."""
