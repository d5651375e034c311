"""What pytest-benchmark times; `loadtest bench` starts it, the test run does not collect it."""
