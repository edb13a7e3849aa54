"""What a client decides for each frame of a stream: whether to send it, how large, how deep."""
