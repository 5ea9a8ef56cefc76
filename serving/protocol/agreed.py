"""What servers and clients agree on before either runs: address, the model's name, the limits of a request."""

DEFAULT_URL = "http://127.0.0.1:8080"
MODEL = "simclr"  # the name under which TorchServe registers whatever release it serves
DEFAULT_COLLECTION = "default"  # the one that there is
API_KEY = "SIMCLR_API_KEY"  # the environment variable from which a client takes its key
MAX_IMAGES = 64
MAX_IDS = 1000  # of a get or a delete, where an id costs little
MAX_K = 1000
MAX_OFFSET = 10_000
MAX_LIMIT = 1000
MAX_KEYS = 16  # whose values one request may have counted
MAX_SEED = 2**53 - 1  # the largest number that every JSON reader takes as it is
MAX_HEAVY = 256  # results with a vector or a picture in one reply: a vector in JSON takes some twenty kilobytes
ID_COLUMN, LABEL_COLUMN = "id", "label"  # of a table of labels
