@0xe3a9c3d4089f91da;
# The contract of the Rust tutorial: its client and server work with ours unchanged.
# New methods get higher ordinals; nothing is renumbered.

interface MessageStream {
    struct MessageContent {
        content @0 :Text;
    }

    read @0 (request :MessageContent) -> (chunk :Data);
    # Answers with the content reversed, as UTF-8. Empty content gives an empty chunk.
}
