"""Floor 5: the project is measured and tried here for long. Nothing of this floor is in the wheel."""
