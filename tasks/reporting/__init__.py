"""How the numbers are shown: tables, drawings, words, and the page that holds them."""
