"""What three packages or more use: argument checks, atomic files, progress bars, figures, Philox, the machine."""
