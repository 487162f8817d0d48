"""From a person's own folder to a bundle: what the data are like, what follows from it and why, and a trial step."""
