"""How frozen vectors of knowledge become fields of a ranking model; one small file each."""
