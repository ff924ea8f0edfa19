print("\ud800\udfff \x00 \u202e \x1b]0;title\x07 \ufffe")
raise ValueError("\ud800\x1b[2J")
