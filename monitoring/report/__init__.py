"""report.html: one offline page about a run. `page.py` puts it together, `observer.py` renews it while training;
`python -m monitoring.report RUN` writes it for any run.
"""
