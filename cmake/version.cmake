# The version lives in pyproject.toml alone.
file(STRINGS "${CMAKE_CURRENT_LIST_DIR}/../pyproject.toml" MARKETPLACE_VERSION
     REGEX "^version = " LIMIT_COUNT 1)
string(REGEX REPLACE "^version = \"([0-9.]+).*\"$" "\\1" MARKETPLACE_VERSION
                     "${MARKETPLACE_VERSION}")
