"""The fuzz targets, one reader of foreign bytes each; `all` names them."""
