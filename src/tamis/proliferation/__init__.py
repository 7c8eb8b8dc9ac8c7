"""Score tumour proliferation on whole-slide images."""
