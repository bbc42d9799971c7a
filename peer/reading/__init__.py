"""Reading of contents at an offset, from this device or while they are being fetched."""
