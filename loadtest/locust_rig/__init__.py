"""What the Locust users share: connections, pacing, statistics, options and web pages."""
