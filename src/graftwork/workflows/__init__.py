"""The verbs: every module strings parts of the lower rooms together to answer one question of a user."""
