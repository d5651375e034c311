@0xe3a96d05b8f2417c;
# Nothing but the way there and back: what a call costs whatever is in it.

interface Echo {
    echo @0 (data :Data) -> (data :Data);
    # Answers with the bytes as they came; no data gives no data.
}
