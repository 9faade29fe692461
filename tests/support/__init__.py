"""What tests share: corpora, models, runs, faults and servers. Test files import from here, never from each other."""
