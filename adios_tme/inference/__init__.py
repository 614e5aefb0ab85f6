"""Models on images of any size: windows, and what is made of their masks."""
