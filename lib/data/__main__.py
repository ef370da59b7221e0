"""`python -m lib.data NAME ...`: are these data sets here, and what are they?"""

import json
import sys

from lib import catalog


def main(names: list[str]) -> int:
    """Read each data set (downloading it where needed) and say what it is; 2 and one line when one cannot be had.

    Of a folder of images the files are listed and not decoded: how many are wanted is not known here.
    """
    try:
        for name in names:
            print(json.dumps(catalog.load("data", name)().info))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
