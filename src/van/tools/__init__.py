"""What is built on the rest: doctor, report, benchmark, complexity, quickstart."""
