"""The verbs of the command line: options, bundled studies, what each does, and how errors are said."""
