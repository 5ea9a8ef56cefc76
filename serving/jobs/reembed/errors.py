"""What every error of this work ends with."""

RESUME = "what is stored is kept, and the same command goes on from there"
