"""A small steganographic network: hides bits in a picture so that another network reads them."""
