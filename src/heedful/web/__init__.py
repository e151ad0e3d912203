"""The web side: labelling. Django; never imports torch."""
