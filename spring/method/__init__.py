"""SPRInG, one file per step: prompts, drift, replay, retrieval, gate, learned gate, mixing."""
