"""From folders as other people publish them to one list of recordings and texts: one reader a layout, told apart by
evidence; `recognise.read_folder` is the entry. Nothing in the folder is changed or run."""
