"""The supervisor's side: it accepts, hands connections to workers, and keeps these alive."""
