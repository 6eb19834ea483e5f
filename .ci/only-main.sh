#!/usr/bin/env bash
# Lets a self-hosted runner refuse every job that is not of the branch main. It lies on the
# runner's machine, where no pull request can change it (ACTIONS_RUNNER_HOOK_JOB_STARTED; see
# .github/gpu-runner.md): a pull request may change every workflow, and what it runs on.
set -euo pipefail

repository=${BLACKBELT_REPOSITORY:?owner/name of the repository that this runner serves}
refuse() {
  echo "refused: ${GITHUB_EVENT_NAME:-?} of ${GITHUB_REF:-?} in ${GITHUB_REPOSITORY:-?}" >&2
  exit 1
}
[[ ${GITHUB_REPOSITORY:-} == "$repository" && ${GITHUB_REF:-} == refs/heads/main ]] || refuse
case ${GITHUB_EVENT_NAME:-} in
  push | schedule | workflow_dispatch) ;;
  *) refuse ;;
esac
