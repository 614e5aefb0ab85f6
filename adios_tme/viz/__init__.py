"""What people look at: pictures of masks, curves of runs, contact sheets."""
